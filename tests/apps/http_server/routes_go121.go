//go:build !go1.22

package main

import "net/http"

// addPatterns registers the prefixes that come nearest to the patterns of Go 1.22.
func addPatterns(mux *http.ServeMux, handler http.Handler) {
	mux.Handle("/items/", handler)
	mux.Handle("/files/", handler)
	mux.Handle("/orders/", handler)
	mux.Handle("shop.example.com/carts/", handler)
}
