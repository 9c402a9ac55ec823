// Command http_client sends requests to http_server and writes down, a JSON line for each, all that a span of the server
// has to say about it (result.go). What it sends depends on -seed alone (request.go), so that two runs can be compared;
// with -target every request is the same one, for measuring.
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
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// An exchange sends one request on a worker's connection and fills in what became of it.
type exchange func(*request, *result)

func main() {
	address := flag.String("address", "127.0.0.1:8080", "the server's host:port")
	mode := flag.String("mode", "http1", "http1 (kept alive), http1.0, close (HTTP/1.1, a connection each), h2 (TLS), h2c")
	requests := flag.Int("requests", 1000, "how many; 0: until -duration is over")
	connections := flag.Int("connections", 16, "how many at a time, a connection each")
	duration := flag.Duration("duration", 0, "stop after this time; 0: after -requests")
	rate := flag.Float64("rate", 0, "requests a second over all connections; 0: as fast as they are answered")
	seed := flag.Uint64("seed", 1, "what the requests are made from")
	faults := flag.Float64("faults", 0, "share of requests that make the handler panic, abort or hijack")
	target := flag.String("target", "", "send this request always: GET, eight headers, a traceparent")
	out := flag.String("out", "-", "file for the JSON lines; -: standard output; empty: none")
	flag.Parse()
	log.SetFlags(0)
	connect, known := modes[*mode]
	if !known || *connections < 1 || *requests == 0 && *duration == 0 {
		flag.Usage()
		os.Exit(2)
	}

	lines := openLines(*out)
	start := time.Now()
	var number atomic.Int64
	var latencies [][]time.Duration
	var failed atomic.Int64
	var workers sync.WaitGroup
	for worker := range *connections {
		latencies = append(latencies, nil)
		workers.Add(1)
		go func() {
			defer workers.Done()
			send, hangUp := connect(*address)
			defer hangUp()
			// Request n is always the same one, whichever connection it goes over.
			for {
				n := int(number.Add(1)) - 1
				if *requests > 0 && n >= *requests || *duration > 0 && time.Since(start) > *duration {
					return
				}
				if *rate > 0 {
					time.Sleep(time.Until(start.Add(time.Duration(float64(n) / *rate * float64(time.Second)))))
				}
				made := fixedRequest(n, *address, *target)
				if *target == "" {
					made = randomRequest(*seed, n, *address, *mode, *faults)
				}
				outcome := result{Number: n, Mode: *mode, request: made.printable()}
				begin := time.Now()
				send(&made, &outcome)
				took := time.Since(begin)
				outcome.StartNS, outcome.EndNS = begin.UnixNano(), begin.Add(took).UnixNano()
				if outcome.Error != "" {
					failed.Add(1)
				}
				latencies[worker] = append(latencies[worker], took)
				lines.write(&outcome)
			}
		}()
	}
	workers.Wait()
	lines.close()
	summarise(latencies, failed.Load(), time.Since(start))
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

func summarise(latencies [][]time.Duration, failed int64, took time.Duration) {
	var all []time.Duration
	for _, some := range latencies {
		all = append(all, some...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	quantile := func(share float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return float64(all[int(share*float64(len(all)-1))].Nanoseconds()) / 1000
	}
	summary := map[string]any{
		"requests": len(all), "failed": failed, "seconds": took.Seconds(),
		"p50_us": quantile(0.50), "p90_us": quantile(0.90), "p99_us": quantile(0.99),
	}
	if err := json.NewEncoder(os.Stderr).Encode(summary); err != nil {
		log.Fatal(err)
	}
}
