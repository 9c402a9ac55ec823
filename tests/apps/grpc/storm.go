package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// digest is a checksum of the metadata whose names begin with x-.
func digest(md metadata.MD) string {
	var names []string
	for name := range md {
		if strings.HasPrefix(name, "x-") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	hash := sha256.New()
	for _, name := range names {
		fmt.Fprintln(hash, name, md[name])
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:8])
}

// changing is metadata that differs from call to call: names that stay and come back, others that are new each time, values
// that the compression's table keeps, and some that drive all others out of it.
func changing(number int) metadata.MD {
	md := metadata.MD{}
	for i := 0; i < number%14; i++ {
		md.Set(fmt.Sprintf("x-field-%d", i), fmt.Sprint(number%(i+2)))
	}
	if number%5 == 0 {
		md.Set(fmt.Sprintf("x-new-%d", number), "once")
	}
	if number%17 == 0 {
		md.Set("x-long", strings.Repeat(fmt.Sprintf("%08x", number), number%400))
	}
	return md
}

type tally struct {
	Calls   int   `json:"calls"`
	Failed  int64 `json:"failed"`
	Carried int64 `json:"carried"` // those that came with a trace context, other than the program's own
	Own     int64 `json:"own"`     // those that were sent with the program's own
}

// storm makes calls of all kinds, many at a time on each connection, and checks what the server saw of each.
func storm(pool []*grpc.ClientConn, concurrency, calls int) {
	methods := []string{"Unary", "Unary", "Unary", "ServerStream", "Unary", "ClientStream", "Unary", "Both"}
	sum := tally{Calls: calls}
	var next int64
	var workers sync.WaitGroup
	for i := 0; i < concurrency; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for number := int(atomic.AddInt64(&next, 1)); number <= calls; number = int(atomic.AddInt64(&next, 1)) {
				one := Call{Method: methods[number%len(methods)]}
				one.ID, one.Messages = fmt.Sprint(number), 1+number%3
				md := changing(number)
				if number%11 == 0 {
					one.Send = fmt.Sprintf("00-%032x-%016x-01", number, number)
					md.Set("traceparent", one.Send)
					atomic.AddInt64(&sum.Own, 1)
				}
				ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(context.Background(), md))
				if number%3 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Hour)
				}
				reply := new(Reply)
				var err error
				if one.Method == "Unary" {
					err = pool[number%len(pool)].Invoke(ctx, "/shapes.Shapes/Unary", &one.Request, reply)
				} else {
					err = stream(ctx, pool[number%len(pool)], "/shapes.Shapes/"+one.Method, one, reply)
				}
				cancel()
				switch {
				case err != nil || reply.ID != one.ID || reply.Metadata != digest(md):
				case one.Send != "" && reply.Traceparent != one.Send:
				case one.Send == "" && reply.Traceparent != "":
					atomic.AddInt64(&sum.Carried, 1)
					if len(reply.Traceparent) == len("00-")+32+1+16+3 {
						continue
					}
				default:
					continue
				}
				if atomic.AddInt64(&sum.Failed, 1) < 20 {
					fmt.Fprintln(os.Stderr, number, one.Method, err, *reply)
				}
			}
		}()
	}
	workers.Wait()
	json.NewEncoder(os.Stdout).Encode(sum)
}
