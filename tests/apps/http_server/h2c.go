//go:build !go1.24

package main

import (
	"log"
	"net/http"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

// h2cServer speaks HTTP/2 without TLS by golang.org/x/net: another http2 package than the one inside net/http.
func h2cServer(handler http.Handler, errors *log.Logger) *http.Server {
	return &http.Server{Handler: h2c.NewHandler(handler, &http2.Server{}), ErrorLog: errors}
}
