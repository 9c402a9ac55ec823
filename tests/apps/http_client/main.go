// Command http_client sends requests to http_server and writes down, a JSON line for each, all that a span of the server
// has to say about it (result.go). What it sends depends on -seed alone (request.go), so that two runs can be compared;
// with -target every request is the same one (flood.go).
//
// A summary, one JSON object, goes to the standard error at the end.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
	"sync"
	"time"
)

func main() {
	address := flag.String("address", "127.0.0.1:8080", "the server's host:port")
	mode := flag.String("mode", "http1", "http1 (kept alive), http1.0, close (HTTP/1.1, a connection each), h2 (TLS), h2c")
	var load load
	flag.IntVar(&load.requests, "requests", 1000, "how many; 0: until -duration is over")
	flag.IntVar(&load.connections, "connections", 16, "how many at a time, a connection each")
	flag.DurationVar(&load.duration, "duration", 0, "stop after this time; 0: after -requests")
	flag.Float64Var(&load.rate, "rate", 0, "requests a second over all connections; 0: as fast as they are answered")
	seed := flag.Uint64("seed", 1, "what the requests are made from")
	faults := flag.Float64("faults", 0, "share of requests that make the handler panic, abort or hijack")
	out := flag.String("out", "-", "file for the JSON lines; -: standard output; empty: none")
	target := flag.String("target", "", "send one request always, for measuring: HTTP/1.1, GET, eight headers; no lines")
	pipeline := flag.Int("pipeline", 1, "with -target: requests in one write")
	flag.Parse()
	log.SetFlags(0)
	connect, known := modes[*mode]
	if !known || load.connections < 1 || *pipeline < 1 || load.requests == 0 && load.duration == 0 {
		flag.Usage()
		os.Exit(2)
	}

	if *target != "" {
		load.run(*pipeline, func() (func(int) error, func()) { return flood(*address, *target, *pipeline) })
		return
	}
	lines := openLines(*out)
	load.run(1, func() (func(int) error, func()) {
		send, hangUp := connect(*address)
		return func(n int) error {
			made := randomRequest(*seed, n, *address, *mode, *faults)
			outcome := result{Number: n, Mode: *mode, request: made.printable()}
			begin := time.Now()
			err := send(&made, &outcome)
			outcome.StartNS, outcome.EndNS = begin.UnixNano(), begin.Add(time.Since(begin)).UnixNano()
			if err != nil {
				outcome.Error = err.Error()
			}
			lines.write(&outcome)
			return err
		}, hangUp
	})
	lines.close()
}

// lineFile is a file of JSON lines that many write to; the zero value takes none.
type lineFile struct {
	mutex   sync.Mutex
	file    io.Closer
	buffer  *bufio.Writer
	encoder *json.Encoder
}

func openLines(path string) *lineFile {
	if path == "" {
		return &lineFile{}
	}
	file := os.Stdout
	if path != "-" {
		var err error
		if file, err = os.Create(path); err != nil {
			log.Fatal(err)
		}
	}
	lines := &lineFile{file: file, buffer: bufio.NewWriter(file)}
	lines.encoder = json.NewEncoder(lines.buffer)
	lines.encoder.SetEscapeHTML(false)
	return lines
}

func (l *lineFile) write(line any) {
	if l.buffer == nil {
		return
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if err := l.encoder.Encode(line); err != nil {
		log.Fatal(err)
	}
}

func (l *lineFile) close() {
	if l.buffer == nil {
		return
	}
	if err := l.buffer.Flush(); err != nil {
		log.Fatal(err)
	}
	if err := l.file.Close(); err != nil {
		log.Fatal(err)
	}
}
