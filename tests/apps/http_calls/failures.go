package main

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

// secure is a server that nobody trusts; silent one that never answers; clear one that speaks HTTP/2 without TLS.
var (
	secure = quietServer(true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }))
	silent = quietServer(false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	broken = quietServer(false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))
	clear  = quietServer(false, h2c.NewHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "ok")
	}), &http2.Server{}))

	slow     = &http.Client{Transport: &http.Transport{ResponseHeaderTimeout: 20 * time.Millisecond}}
	trusting = &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	direct = &http.Client{Transport: &http2.Transport{
		AllowHTTP: true,
		DialTLS:   func(network, address string, _ *tls.Config) (net.Conn, error) { return net.Dial(network, address) },
	}}
)

func quietServer(encrypted bool, handler http.Handler) string {
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if encrypted {
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Start()
	}
	return server.URL
}

// failures are calls with a client, a URL and, maybe, a time after which the context ends.
var failures = map[string]http.HandlerFunc{
	"/refused":     fails(client, func() string { return "http://" + refusing() + "/" }, 0, false),
	"/timeout":     fails(client, func() string { return silent }, 20*time.Millisecond, false),
	"/canceled":    fails(client, func() string { return silent }, 20*time.Millisecond, true),
	"/slow":        fails(slow, func() string { return silent }, 0, false),
	"/untrusted":   fails(client, func() string { return secure }, 0, false),
	"/unknown":     fails(client, func() string { return "http://nowhere.invalid/" }, 0, false),
	"/aborted":     fails(client, func() string { return broken }, 0, false),
	"/h2":          fails(trusting, func() string { return secure }, 0, false),
	"/h2-direct":   fails(direct, func() string { return clear }, 0, false),
	"/credentials": fails(client, func() string { return "http://user:secret@" + backend[len("http://"):] + "/a%20b/x%2Fy?sig=x" }, 0, false),
}

func fails(client *http.Client, where func() string, after time.Duration, cancel bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if after > 0 && !cancel {
			limited, stop := context.WithTimeout(ctx, after)
			defer stop()
			ctx = limited
		} else if after > 0 {
			cancelled, stop := context.WithCancel(ctx)
			time.AfterFunc(after, stop)
			ctx = cancelled
		}
		target, err := url.Parse(where())
		if err != nil {
			log.Fatal(err)
		}
		if target.RawQuery != "" {
			target.RawQuery += "&"
		}
		target.RawQuery += "request=" + id(r)
		request, err := http.NewRequestWithContext(ctx, "POST", target.String(), nil)
		if err != nil {
			log.Fatal(err)
		}
		send(client, request)
	}
}

// refusing is an address where nobody listens.
func refusing() string {
	listener := listen()
	defer listener.Close()
	return listener.Addr().String()
}
