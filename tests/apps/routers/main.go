// Command routers serves the same few routes by each router that gospan knows, for its tests: /gin/... by gin, /mux/... by
// gorilla/mux, and so on. It prints one JSON line when it listens (pid, http, https) and ends on SIGTERM or SIGINT.
//
// go.mod has the newest versions; the other .mod files, and the tags that they need, have older ones.

// go.mod may ask for an older Go, which would bring the ServeMux of Go 1.21 with it.
//
//go:debug httpmuxgo121=0
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

type key struct{}

// handlers serve what is below the path of their name.
var handlers = map[string]http.Handler{}

func main() {
	log.SetFlags(0)
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	// No router decides which router it is: none of them but the one that a test is about has a say.
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := strings.SplitN(r.URL.Path, "/", 3)[1]
			if handler := handlers[name]; handler != nil {
				handler.ServeHTTP(w, r)
				return
			}
			http.NotFound(w, r)
		}),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() { log.Fatal(server.Serve(listener)) }()
	port := listener.Addr().(*net.TCPAddr).Port
	if err := json.NewEncoder(os.Stdout).Encode(map[string]int{"pid": os.Getpid(), "http": port}); err != nil {
		log.Fatal(err)
	}
	<-stop.Done()
}

func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, "hello\n")
}

func crash(w http.ResponseWriter, r *http.Request) {
	panic(http.ErrAbortHandler)
}

// seize takes the connection over, as WebSockets do.
func seize(w http.ResponseWriter, r *http.Request) {
	connection, buffer, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	_, _ = buffer.WriteString("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\ntaken\n")
	_ = buffer.Flush()
}

// withContext replaces the request, as middleware does.
func withContext(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&writer{w}, r.WithContext(context.WithValue(r.Context(), key{}, "value")))
	})
}

// copied replaces it without the help of net/http.
func copied(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		other := new(http.Request)
		*other = *r
		next.ServeHTTP(w, other)
	})
}

// writer is a ResponseWriter of middleware's own.
type writer struct{ http.ResponseWriter }

func (w *writer) Flush() { w.ResponseWriter.(http.Flusher).Flush() }
