package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// echo serves the stress: over HTTP/1 in clear text, and over HTTP/1 and HTTP/2 in TLS, each at an address that it gives. What
// it answers depends on the request alone, but not on trace context. Whether the request had one goes into a header of its
// own.
func echo() (clear, encrypted string) {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo/", answer)
	mux.HandleFunc("/upgrade/", upgrade)
	mux.HandleFunc("/events/", events)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	self := &url.URL{Scheme: "http", Host: plain.Addr().String()}
	proxy := httputil.NewSingleHostReverseProxy(self)
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	mux.Handle("/proxy/", http.StripPrefix("/proxy", proxy))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wrong := wrongContext(r); wrong != "" {
			http.Error(w, wrong, http.StatusBadRequest)
			return
		}
		if r.Method == http.MethodConnect {
			tunnel(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
	go func() { log.Fatal(http.Serve(plain, handler)) }()
	go func() {
		server := &http.Server{
			Handler:   handler,
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{selfSigned()}, NextProtos: []string{"h2", "http/1.1"}},
		}
		log.Fatal(server.ServeTLS(secure, "", ""))
	}()
	return plain.Addr().String(), secure.Addr().String()
}

var traceparent = regexp.MustCompile("^00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]$")

// wrongContext says what is wrong with a request's trace context.
func wrongContext(r *http.Request) string {
	lines := r.Header["Traceparent"]
	own := r.Header.Get("X-Own")
	switch {
	case r.Method == http.MethodConnect && len(lines) > 0:
		return "CONNECT with a traceparent"
	case len(lines) > 1:
		return fmt.Sprintf("%d lines of traceparent", len(lines))
	case len(lines) == 1 && !traceparent.MatchString(lines[0]):
		return "not a traceparent: " + lines[0]
	case own != "" && (len(lines) != 1 || lines[0] != own):
		return "the program's own traceparent has been replaced"
	}
	return ""
}

// digest is a checksum of all that a request consists of, without its trace context.
func digest(r *http.Request) (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, r.Method, r.URL, r.Proto)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		if name != "Traceparent" && name != "Tracestate" && !strings.HasPrefix(name, "X-Forwarded") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintln(hash, name, r.Header[name])
	}
	size, err := io.Copy(hash, r.Body)
	fmt.Fprintln(hash, size, r.Trailer)
	return hex.EncodeToString(hash.Sum(nil)), err
}

func answer(w http.ResponseWriter, r *http.Request) {
	sum, err := digest(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Header.Get("Traceparent") != "" {
		w.Header().Set("X-Carried", "1")
	}
	fmt.Fprintln(w, sum)
	size, _ := strconv.Atoi(r.URL.Query().Get("size"))
	line := []byte(strings.Repeat(sum, 16))
	for ; size > 0; size -= len(line) {
		w.Write(line)
	}
}

// upgrade takes the connection over, as WebSockets do, and sends back what comes until that ends.
func upgrade(w http.ResponseWriter, r *http.Request) {
	connection, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer connection.Close()
	fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	buffered.Flush()
	for {
		line, err := buffered.ReadString('\n')
		if err != nil {
			return
		}
		buffered.WriteString(line)
		buffered.Flush()
	}
}

// events sends an event each 100 ms, for as long as it is asked to.
func events(w http.ResponseWriter, r *http.Request) {
	count, _ := strconv.Atoi(r.URL.Query().Get("count"))
	w.Header().Set("Content-Type", "text/event-stream")
	for i := 0; i < count; i++ {
		fmt.Fprintf(w, "data: %d\n\n", i)
		w.(http.Flusher).Flush()
		time.Sleep(100 * time.Millisecond)
	}
}

// tunnel is a proxy's CONNECT.
func tunnel(w http.ResponseWriter, r *http.Request) {
	to, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
	go func(reader *bufio.Reader) {
		io.Copy(to, reader)
		to.Close()
	}(buffered.Reader)
	io.Copy(from, to)
}
