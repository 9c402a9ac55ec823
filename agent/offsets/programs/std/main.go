// A program that is only read, never run: it makes the standard library's types reachable whose layouts the agent may
// need, so that the linker keeps their descriptors. The types that packages keep to themselves come with the functions
// that use them.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/rpc"
	"net/rpc/jsonrpc"
	"net/textproto"
	"net/url"
	"os"
	"sync"
	"time"
)

var kept = []any{
	&bufio.Reader{}, &bufio.ReadWriter{}, &bufio.Scanner{}, &bufio.Writer{}, &bytes.Buffer{}, &bytes.Reader{},
	&http.Client{}, &http.Cookie{}, http.Header{}, &http.Request{}, &http.Response{}, &http.ServeMux{}, &http.Server{},
	&http.Transport{}, &httptrace.ClientTrace{}, &httputil.ReverseProxy{},
	&net.TCPConn{}, &net.TCPAddr{}, &net.UnixConn{}, &net.UDPConn{}, &net.Dialer{}, &net.Resolver{},
	&rpc.Client{}, &rpc.Request{}, &rpc.Response{}, &rpc.Server{},
	&sql.Conn{}, &sql.DB{}, &sql.Row{}, &sql.Rows{}, &sql.Stmt{}, &sql.Tx{}, &sql.TxOptions{}, driver.ErrBadConn,
	&sync.Mutex{}, &sync.RWMutex{}, &sync.WaitGroup{}, &sync.Once{}, &sync.Pool{}, &sync.Map{},
	&textproto.Reader{}, &textproto.Writer{}, textproto.MIMEHeader{}, &tls.Conn{}, &tls.ConnectionState{},
	&url.URL{}, url.Values{}, time.Time{}, &time.Timer{},
}

func main() {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), kept[0], kept), time.Second)
	defer cancel()
	serve(ctx)
	call(ctx)
	query(ctx)
}

func serve(ctx context.Context) {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Host: os.Args[0]})
	http.Handle("/", proxy)
	server := &http.Server{Addr: os.Args[0], ReadTimeout: time.Second}
	defer server.Shutdown(ctx)
	go server.ListenAndServeTLS("", "")
	rpc.HandleHTTP()
	http.Handle("/timeout", http.TimeoutHandler(http.StripPrefix(os.Args[0], proxy), time.Second, ""))
	http.ListenAndServe(os.Args[0], nil)
}

func call(ctx context.Context) {
	request, _ := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{}), "GET", "", nil)
	response, err := http.DefaultClient.Do(request)
	if err == nil {
		response.Write(os.Stdout)
	}
	client, err := jsonrpc.Dial("tcp", os.Args[0])
	if err == nil {
		client.Go(os.Args[0], kept, kept, nil)
	}
}

func query(ctx context.Context) {
	db, err := sql.Open(os.Args[0], "")
	if err != nil {
		return
	}
	defer db.Close()
	tx, _ := db.BeginTx(ctx, nil)
	prepared, _ := tx.PrepareContext(ctx, os.Args[0])
	prepared.ExecContext(ctx, kept...)
	rows, _ := prepared.QueryContext(ctx)
	for rows.Next() {
		rows.Scan(kept...)
	}
	db.QueryRowContext(ctx, os.Args[0]).Scan(kept...)
	tx.Commit()
	one, _ := db.Conn(ctx)
	one.Raw(func(any) error { return nil })
}
