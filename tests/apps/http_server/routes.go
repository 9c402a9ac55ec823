package main

import (
	"bytes"
	"net/http"
	"time"
)

// addRoutes registers what every Go version has: the same paths are served everywhere, by patterns as new as there are.
func addRoutes(mux *http.ServeMux) {
	respond := http.HandlerFunc(respond)
	mux.Handle("/do", respond)
	mux.Handle("/static/", respond)
	mux.Handle("api.example.com/", respond)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", respond))
	mux.Handle("/timeout", http.TimeoutHandler(respond, 50*time.Millisecond, "too late\n"))
	mux.Handle("/moved", http.RedirectHandler("/do", http.StatusFound))
	mux.HandleFunc("/content", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "content.txt", time.Time{}, bytes.NewReader(filler(10000)))
	})
	addPatterns(mux, respond)
}
