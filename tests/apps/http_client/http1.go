package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"time"
)

// An exchange sends one request on a worker's connection and fills in what became of it.
type exchange func(*request, *result) error

// modes by name: each opens what one worker sends over, and says how to close it.
var modes = map[string]func(address string) (exchange, func()){
	"http1":   func(address string) (exchange, func()) { return http1(address, "1.1", true) },
	"http1.0": func(address string) (exchange, func()) { return http1(address, "1.0", false) },
	"close":   func(address string) (exchange, func()) { return http1(address, "1.1", false) },
	"h2":      func(address string) (exchange, func()) { return http2("https", address) },
	"h2c":     func(address string) (exchange, func()) { return http2("http", address) },
}

const patience = 20 * time.Second

// http1 writes requests by hand: net/http's client would correct their letter case, bytes and targets.
func http1(address, version string, keepAlive bool) (exchange, func()) {
	var wire *connection
	hangUp := func() {
		if wire != nil {
			wire.Close()
			wire = nil
		}
	}
	send := func(made *request, outcome *result) error {
		outcome.Protocol = version
		if wire == nil {
			var err error
			if wire, err = dial(address); err != nil {
				return err
			}
		}
		outcome.Local = wire.LocalAddr().String()
		again, err := wire.exchange(encode(made, version, keepAlive), made.Method, outcome)
		// A taken connection closes without having said so.
		if err != nil || !again || !keepAlive || made.Fault {
			hangUp()
		}
		return err
	}
	return send, hangUp
}

// encode is the request as bytes.
func encode(made *request, version string, keepAlive bool) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s %s HTTP/%s\r\nHost: %s\r\n", made.Method, made.Target, version, made.Host)
	if made.UserAgent != nil {
		fmt.Fprintf(&out, "User-Agent: %s\r\n", *made.UserAgent)
	}
	for i, one := range made.Headers {
		if i == len(made.Headers)/2 {
			encodeContext(&out, &made.traceContext)
		}
		fmt.Fprintf(&out, "%s: %s\r\n", one.name, one.value)
	}
	if len(made.Headers) == 0 {
		encodeContext(&out, &made.traceContext)
	}
	if !keepAlive && version == "1.1" {
		out.WriteString("Connection: close\r\n")
	}
	switch {
	case made.Chunked && version == "1.1":
		half := len(made.Body) / 2
		fmt.Fprintf(&out, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n",
			half, made.Body[:half], len(made.Body)-half, made.Body[half:])
	case made.Body != "":
		fmt.Fprintf(&out, "Content-Length: %d\r\n\r\n%s", len(made.Body), made.Body)
	default:
		out.WriteString("\r\n")
	}
	return out.Bytes()
}

func encodeContext(out *bytes.Buffer, sent *traceContext) {
	if sent.Name != "" {
		fmt.Fprintf(out, "%s: %s\r\n", sent.Name, sent.Traceparent)
	}
	if sent.Tracestate != "" {
		fmt.Fprintf(out, "tracestate: %s\r\n", sent.Tracestate)
	}
}

// connection hashes every byte that it reads.
type connection struct {
	net.Conn
	reader *bufio.Reader
	hash   hash.Hash
}

func dial(address string) (*connection, error) {
	wire, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	made := &connection{Conn: wire, hash: sha256.New()}
	made.reader = bufio.NewReader(io.TeeReader(wire, made.hash))
	return made, nil
}

// exchange sends a request and reads its response; again says whether the connection can take another one.
func (c *connection) exchange(sent []byte, method string, outcome *result) (again bool, err error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(sent); err != nil {
		return false, err
	}
	c.hash.Reset()
	for {
		response, err := http.ReadResponse(c.reader, &http.Request{Method: method})
		if err != nil {
			return false, err
		}
		if response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		outcome.Status = response.StatusCode
		_, err = io.Copy(io.Discard, response.Body)
		outcome.Checksum = hex.EncodeToString(c.hash.Sum(nil)[:8])
		return !response.Close, err
	}
}
