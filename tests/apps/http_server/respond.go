package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"time"
)

// respond does what the query asks for, in this order:
//
//	sleep=D         wait, as time.ParseDuration reads it
//	read            read the whole body, which also lets an Expect: 100-continue go on
//	mutate          spoil the request, as some middleware does
//	context         put a value into the request's context
//	panic=before    panic; panic=abort: with http.ErrAbortHandler; panic=exit: runtime.Goexit
//	hijack          take the connection, write 200 and six bytes onto it, close it
//	inform=CODE     send an informational response first
//	header=N        N response headers
//	status=CODE     call WriteHeader; without it the status is the implicit 200
//	nobody          no body
//	size=N          a body of N bytes; without it the method and the request's target
//	chunks=N        in N pieces, each flushed
//	panic=after     panic once that is written
func respond(w http.ResponseWriter, r *http.Request) {
	body := []byte(r.Method + " " + r.RequestURI + "\n")
	if r.URL.RawQuery == "" {
		write(w, body)
		return
	}
	query := r.URL.Query()
	if query.Has("sleep") {
		duration, err := time.ParseDuration(query.Get("sleep"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		time.Sleep(duration)
	}
	if query.Has("read") {
		read, err := io.Copy(io.Discard, r.Body)
		body = []byte(fmt.Sprintf("read %d bytes: %v\n", read, err))
	}
	if query.Has("mutate") {
		mutate(r)
	}
	if query.Has("context") {
		*r = *r.WithContext(context.WithValue(r.Context(), key{}, "value"))
	}
	switch query.Get("panic") {
	case "before":
		panic("asked for")
	case "abort":
		panic(http.ErrAbortHandler)
	case "exit":
		runtime.Goexit()
	}
	if query.Has("hijack") {
		hijack(w)
		return
	}
	if code := number(query, "inform", 0); code > 0 {
		w.WriteHeader(code)
	}
	for i := 0; i < number(query, "header", 0); i++ {
		w.Header().Set("X-Number-"+strconv.Itoa(i), strconv.Itoa(i*i))
	}
	if code := number(query, "status", 0); code > 0 {
		w.WriteHeader(code)
	}
	if query.Has("size") {
		body = filler(number(query, "size", 0))
	}
	if !query.Has("nobody") {
		writePieces(w, body, number(query, "chunks", 1))
	}
	if query.Get("panic") == "after" {
		panic("asked for")
	}
}

type key struct{}

// number is a parameter's value, or what to take where it is absent or no number.
func number(query url.Values, name string, otherwise int) int {
	value, err := strconv.Atoi(query.Get(name))
	if err != nil {
		return otherwise
	}
	return value
}

// filler is a body of a size in bytes.
func filler(size int) []byte {
	body := make([]byte, size)
	for i := range body {
		body[i] = 'a' + byte(i%26)
	}
	return body
}

// write sends a body; a client that has gone, or a status without a body, is nothing to report.
func write(w http.ResponseWriter, body []byte) {
	_, _ = w.Write(body)
}

func writePieces(w http.ResponseWriter, body []byte, pieces int) {
	if pieces <= 1 {
		write(w, body)
		return
	}
	size := (len(body) + pieces - 1) / pieces
	for len(body) > 0 {
		if size > len(body) {
			size = len(body)
		}
		write(w, body[:size])
		body = body[size:]
		w.(http.Flusher).Flush()
	}
}

func mutate(r *http.Request) {
	if r.Method != http.MethodHead { // or else its response would have a body
		r.Method = "MUTATED"
	}
	r.URL.Path = "/mutated"
	r.URL.RawQuery = "mutated"
	r.Host = "mutated.example.com"
	r.RequestURI = "/mutated?mutated"
	r.RemoteAddr = "192.0.2.1:1"
	for name := range r.Header {
		delete(r.Header, name)
	}
	r.Header.Set("User-Agent", "mutated")
}

func hijack(w http.ResponseWriter) {
	hijacker, can := w.(http.Hijacker)
	if !can {
		http.Error(w, "HTTP/2 has no connection to take", http.StatusNotImplemented)
		return
	}
	connection, buffer, err := hijacker.Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer connection.Close()
	_, _ = buffer.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ntaken\n")
	_ = buffer.Flush()
}
