package main

import (
	"bufio"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// A request as the server saw it. Text is Latin-1: each byte is the code point of its value, so that JSON can hold any.
type request struct {
	Method    string `json:"method"`
	Target    string `json:"target"`
	Protocol  string `json:"protocol"`
	Host      string `json:"host"`
	UserAgent string `json:"user_agent"`
	Remote    string `json:"remote"`
	Pattern   string `json:"pattern"` // what ServeMux says; up to Go 1.26 the cleaned path where it redirects
	Status    int    `json:"status"`  // as given to WriteHeader, 200 if implicit, 0 if nothing was written
	Finished  bool   `json:"finished"`
	StartNS   int64  `json:"start_ns"`
	EndNS     int64  `json:"end_ns"`
}

// recorded writes a line to file for every request, before the request is seen to end by its client.
func recorded(next http.Handler, mux *http.ServeMux, file *os.File) http.Handler {
	var one sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		entry := request{
			Method:    r.Method,
			Target:    latin1(r.RequestURI),
			Protocol:  r.Proto,
			Host:      latin1(r.Host),
			UserAgent: latin1(r.UserAgent()),
			Remote:    r.RemoteAddr,
			Pattern:   latin1(pattern),
			StartNS:   time.Now().UnixNano(),
		}
		writer := &statusWriter{ResponseWriter: w}
		defer func() {
			entry.EndNS = time.Now().UnixNano()
			entry.Status = writer.status
			if entry.Finished && entry.Status == 0 {
				entry.Status = http.StatusOK
			}
			line, err := json.Marshal(entry)
			if err != nil {
				log.Fatal(err)
			}
			one.Lock()
			defer one.Unlock()
			if _, err := file.Write(append(line, '\n')); err != nil {
				log.Fatal(err)
			}
		}()
		next.ServeHTTP(writer, r)
		entry.Finished = true
	})
}

// statusWriter remembers the status; all else is the server's own.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(body []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(body)
}

func (w *statusWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	hijacker, can := w.ResponseWriter.(http.Hijacker)
	if !can {
		return nil, nil, http.ErrNotSupported
	}
	w.status = http.StatusOK
	return hijacker.Hijack()
}

func latin1(text string) string {
	runes := make([]rune, len(text))
	for i := 0; i < len(text); i++ {
		runes[i] = rune(text[i])
	}
	return string(runes)
}
