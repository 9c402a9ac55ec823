package main

import (
	"encoding/json"
	"log"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// load is how many requests are sent, how fast, and over how many connections.
type load struct {
	requests, connections int
	duration              time.Duration
	rate                  float64
}

// run sends blocks of requests, numbered from 0, from as many workers as there are connections, and prints a summary.
// Request n is always the same one, whichever connection it goes over. open gives what a worker sends block n with.
func (l load) run(block int, open func() (send func(n int) error, hangUp func())) {
	start := time.Now()
	var next, failed atomic.Int64
	latencies := make([][]time.Duration, l.connections)
	var workers sync.WaitGroup
	for worker := range l.connections {
		workers.Add(1)
		go func() {
			defer workers.Done()
			send, hangUp := open()
			defer hangUp()
			for {
				n := int(next.Add(int64(block))) - block
				if l.requests > 0 && n >= l.requests || l.duration > 0 && time.Since(start) > l.duration {
					return
				}
				if l.rate > 0 {
					time.Sleep(time.Until(start.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))))
				}
				begin := time.Now()
				if err := send(n); err != nil {
					failed.Add(1)
				}
				latencies[worker] = append(latencies[worker], time.Since(begin))
			}
		}()
	}
	workers.Wait()
	summarise(slices.Concat(latencies...), block, failed.Load(), time.Since(start))
}

func summarise(latencies []time.Duration, block int, failed int64, took time.Duration) {
	slices.Sort(latencies)
	quantile := func(share float64) float64 {
		if len(latencies) == 0 {
			return 0
		}
		return float64(latencies[int(share*float64(len(latencies)-1))].Nanoseconds()) / 1000
	}
	summary := map[string]any{
		"requests": len(latencies) * block, "failed": failed, "seconds": took.Seconds(),
		"p50_us": quantile(0.50), "p90_us": quantile(0.90), "p99_us": quantile(0.99),
	}
	if err := json.NewEncoder(os.Stderr).Encode(summary); err != nil {
		log.Fatal(err)
	}
}
