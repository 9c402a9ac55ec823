package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/segmentio/kafka-go"
)

var address string

// callWith calls the program's own server, and tells it which message it is called for.
func callWith(ctx context.Context, message kafka.Message) {
	url := fmt.Sprintf("http://%s/called?partition=%d&offset=%d", address, message.Partition, message.Offset)
	request, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
	response, err := http.DefaultClient.Do(request)
	if err == nil {
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}

var (
	writersMu sync.Mutex
	writers   = map[string]*kafka.Writer{}
	readersMu sync.Mutex
	readers   = map[string]*kafka.Reader{}
)

func writerOf(topic string) *kafka.Writer {
	writersMu.Lock()
	defer writersMu.Unlock()
	if writers[topic] == nil {
		writers[topic] = newWriter(Command{Topic: topic, Brokers: brokers})
	}
	return writers[topic]
}

func readerOf(topic string) *kafka.Reader {
	readersMu.Lock()
	defer readersMu.Unlock()
	if readers[topic] == nil {
		readers[topic] = newReader(Command{Topic: topic, Brokers: brokers})
	}
	return readers[topic]
}

// serveHTTP starts the server and gives its port.
func serveHTTP() int {
	http.HandleFunc("/called", func(w http.ResponseWriter, r *http.Request) {})
	// Sends the request's id: on its goroutine, or on another one with its context.
	http.HandleFunc("/produce", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		message := kafka.Message{Key: []byte(query.Get("id")), Value: []byte("from a handler")}
		sent := make(chan error, 1)
		switch query.Get("how") {
		case "background":
			sent <- writerOf(query.Get("topic")).WriteMessages(context.Background(), message)
		case "goroutine":
			go func() { sent <- writerOf(query.Get("topic")).WriteMessages(r.Context(), message) }()
		default:
			sent <- writerOf(query.Get("topic")).WriteMessages(r.Context(), message)
		}
		if err := <-sent; err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	})
	// Reads the next message within the request.
	http.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		message, err := readerOf(r.URL.Query().Get("topic")).ReadMessage(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "%s %d", message.Key, message.Offset)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	address = listener.Addr().String()
	go http.Serve(listener, nil)
	return listener.Addr().(*net.TCPAddr).Port
}
