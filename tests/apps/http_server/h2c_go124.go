//go:build go1.24

package main

import (
	"log"
	"net/http"
)

// h2cServer speaks HTTP/2 without TLS as net/http itself can.
func h2cServer(handler http.Handler, errors *log.Logger) *http.Server {
	server := &http.Server{Handler: handler, ErrorLog: errors, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	return server
}
