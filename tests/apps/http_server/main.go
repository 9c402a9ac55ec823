// Command http_server is a net/http server for gospan's tests: it does what its clients ask for, the same way with every
// Go version since 1.19, and its responses hold nothing that changes from run to run.
//
// It prints one JSON line when it listens (pid, go, and the ports http, https and h2c), and ends on SIGTERM, SIGINT, or
// after -for. What requests can ask for is in respond.go, the routes are in routes*.go.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	plain := flag.String("http", "127.0.0.1:0", "where to listen for HTTP/1; empty: nowhere")
	secure := flag.String("https", "", "where to listen for HTTP/1 and HTTP/2 over TLS")
	cleartext := flag.String("h2c", "", "where to listen for HTTP/1 and HTTP/2 without TLS")
	record := flag.String("log", "", "write a JSON line a request to this file")
	lifetime := flag.Duration("for", 0, "end after this time")
	flag.Parse()
	log.SetFlags(0)

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if *lifetime > 0 {
		stop, cancel = context.WithTimeout(stop, *lifetime)
		defer cancel()
	}

	mux := http.NewServeMux()
	addRoutes(mux)
	var handler http.Handler = withoutDate(mux)
	if *record != "" {
		file, err := os.Create(*record)
		if err != nil {
			log.Fatal(err)
		}
		handler = recorded(handler, mux, file)
	}

	ready := map[string]interface{}{"pid": os.Getpid(), "go": runtime.Version()}
	listen := func(name, address string, serve func(net.Listener) error) {
		if address == "" {
			return
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			log.Fatal(err)
		}
		ready[name] = listener.Addr().(*net.TCPAddr).Port
		go func() { log.Fatal(serve(listener)) }()
	}
	// A panic's stack is what a test asked for, nothing to print.
	quiet := log.New(io.Discard, "", 0)
	server := &http.Server{Handler: handler, ErrorLog: quiet}
	listen("http", *plain, server.Serve)
	listen("https", *secure, func(listener net.Listener) error {
		server := &http.Server{Handler: handler, ErrorLog: quiet}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{selfSigned()}, MinVersion: tls.VersionTLS12}
		return server.ServeTLS(listener, "", "")
	})
	listen("h2c", *cleartext, h2cServer(handler, quiet).Serve)

	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		log.Fatal(err)
	}
	<-stop.Done()
}

// withoutDate keeps the one header out that would make two runs differ.
func withoutDate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		next.ServeHTTP(w, r)
	})
}
