// Command http_calls is a server whose handlers call another server, in every way in which a handler can, for gospan's
// tests. Each request says by ?id=N which one it is, and each call says by ?request=N which request it is made for: so
// the spans tell by themselves whether the right ones are parents.
//
// It prints one JSON line when it listens (pid, http, the backend's port, and https, a URL for HTTP/2), and ends when its
// input does.
//
//	http_calls ask URL FIRST NUMBER AT-A-TIME
//
// sends it requests by HTTP/2 instead, numbered from the first one on.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 {
		ask(os.Args[2], integer(os.Args[3]), integer(os.Args[4]), integer(os.Args[5]))
		return
	}
	front, back := listen(), listen()
	backend = "http://" + back.Addr().String()
	startWorkers(jobs)

	mux := http.NewServeMux()
	for path, handler := range shapes {
		mux.HandleFunc(path, handler)
	}
	quiet := log.New(io.Discard, "", 0)
	go func() { log.Fatal((&http.Server{Handler: answers(), ErrorLog: quiet}).Serve(back)) }()
	go func() { log.Fatal((&http.Server{Handler: mux, ErrorLog: quiet}).Serve(front)) }()
	ready := map[string]interface{}{
		"pid": os.Getpid(), "http": port(front), "https": quietServer(true, mux), "backend": port(back),
	}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func listen() net.Listener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func port(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

// answers is the backend.
func answers() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("/meet", func(w http.ResponseWriter, r *http.Request) { calls.meet(integer(r.FormValue("of"))) })
	mux.HandleFunc("/missing", http.NotFound)
	mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/again?"+r.URL.RawQuery, http.StatusFound)
	})
	mux.HandleFunc("/again", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
	})
	return mux
}
