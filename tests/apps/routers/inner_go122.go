//go:build go1.22

package main

import "net/http"

func inner() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /things/{thing}", hello)
	return mux
}
