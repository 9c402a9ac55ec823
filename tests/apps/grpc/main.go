// A gRPC server that writes a line of each call it served, and a client that makes those it is asked for.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"google.golang.org/grpc/metadata"
)

func main() {
	listen := flag.String("listen", "", "serve here")
	log := flag.String("log", "/dev/null", "where the server writes its lines")
	target := flag.String("target", "", "call the server there")
	useTLS := flag.Bool("tls", false, "encrypt")
	overHTTP := flag.Bool("http", false, "serve through net/http")
	workers := flag.Uint("workers", 0, "goroutines that serve streams; 0: one each")
	retry := flag.Bool("retry", false, "try calls again where the server is unavailable")
	connections := flag.Int("connections", 1, "connections of the client")
	concurrency := flag.Int("concurrency", 1, "calls at a time")
	stormy := flag.Int("storm", 0, "instead of calls from standard input make so many, each with other metadata, and check all answers")
	flag.Parse()
	if *target != "" {
		pool := dial(*target, *useTLS, *retry, *connections)
		if *stormy > 0 {
			storm(pool, *concurrency, *stormy)
		} else {
			send(pool, *concurrency)
		}
		return
	}
	serve(*listen, *log, *useTLS, *overHTTP, *workers)
}

func outgoing(ctx context.Context, traceparent string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs("traceparent", traceparent))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
