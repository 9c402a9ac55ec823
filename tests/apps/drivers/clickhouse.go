package main

import (
	"bytes"
	"database/sql"
	"io"
	"net"
	"net/http"
	"strings"

	_ "github.com/ClickHouse/clickhouse-go/v2"
)

// ClickHouse over HTTP, by a server that knows what the driver asks first, and no table.
func clickHouse() (*sql.DB, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch query := string(body); {
		case strings.Contains(query, "displayName()"):
			w.Write(hello())
		case strings.Contains(query, "missing"):
			w.Header().Set("X-ClickHouse-Exception-Code", "60")
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, "Code: 60. DB::Exception: Unknown table expression identifier 'missing'. (UNKNOWN_TABLE)")
		}
	}))
	return sql.Open("clickhouse", "http://"+listener.Addr().String()+"/shop")
}

// A block of the format Native: what is known of it, its size, and its columns, of one row.
func hello() []byte {
	block := []byte{1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 4, 1}
	for _, column := range [][3]string{
		{"displayName()", "String", "\x04test"},
		{"version()", "String", "\x0624.1.1"},
		{"revision()", "UInt32", "\x00\xd2\x00\x00"}, // before all that came later
		{"timezone()", "String", "\x03UTC"},
	} {
		for _, text := range column[:2] {
			block = append(append(block, byte(len(text))), text...)
		}
		block = append(append(block, 0), column[2]...) // no serialization of its own
	}
	return block
}

// ClickHouse's own protocol, by a server that knows no more than the answers to a hello and to a query.
func clickHouseNative() (*sql.DB, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answer(conn)
		}
	}()
	return sql.Open("clickhouse", "clickhouse://"+listener.Addr().String()+"/shop")
}

func answer(conn net.Conn) {
	defer conn.Close()
	// Its name and version, and the revision of its protocol: 54032, the oldest that the driver bears.
	const greeting = "\x00\x04test\x18\x01\x90\xa6\x03"
	packet := make([]byte, 64<<10)
	if _, err := conn.Read(packet); err != nil {
		return
	}
	io.WriteString(conn, greeting)
	for {
		n, err := conn.Read(packet)
		switch {
		case err != nil:
			return
		case bytes.Contains(packet[:n], []byte("missing")):
			// An exception: its code, its name, what it says, no stack, and none that it wraps.
			io.WriteString(conn, "\x02\x3c\x00\x00\x00\x0dDB::Exception\x0dUnknown table\x00\x00")
		case bytes.Contains(packet[:n], []byte("items")):
			io.WriteString(conn, "\x05") // the end of the answer
		}
	}
}
