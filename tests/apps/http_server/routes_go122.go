//go:build go1.22

// go.mod asks for Go 1.19, which would bring 1.21's ServeMux with it.
//go:debug httpmuxgo121=0

package main

import "net/http"

// addPatterns registers patterns with a method, a host, one wildcard, several, and one for the rest.
func addPatterns(mux *http.ServeMux, handler http.Handler) {
	mux.Handle("GET /items/{id}", handler)
	mux.Handle("/items/{id}", handler)
	mux.Handle("/files/{rest...}", handler)
	mux.Handle("POST /orders/{order}/lines/{line}", handler)
	mux.Handle("shop.example.com/carts/{cart}", handler)
	mux.Handle("/{$}", handler)
}
