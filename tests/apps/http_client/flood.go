package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// flood sends one request over and over, as cheaply as can be: what is measured is the server. It is a GET as a proxy
// would pass it on, with eight header lines, and only its traceparent changes. The response has to be the same each time;
// once its length is known, responses are only counted in bytes.
func flood(address, target string, pipeline int) (send func(n int) error, hangUp func()) {
	wire, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	requests := make([]byte, 0, 512*pipeline)
	var responses []byte
	send = func(n int) error {
		requests = requests[:0]
		for i := range pipeline {
			requests = appendFlood(requests, address, target, n+i)
		}
		_ = wire.SetDeadline(time.Now().Add(patience))
		if _, err := wire.Write(requests); err != nil {
			log.Fatal(err)
		}
		if responses == nil {
			responses = make([]byte, readResponses(wire, pipeline))
			return nil
		}
		if _, err := io.ReadFull(wire, responses); err != nil {
			log.Fatal(err)
		}
		if !bytes.HasPrefix(responses, []byte("HTTP/1.1 200 ")) {
			log.Fatalf("%s is answered with %.40q", target, responses)
		}
		return nil
	}
	return send, func() { wire.Close() }
}

func appendFlood(to []byte, address, target string, n int) []byte {
	return fmt.Appendf(to, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gospan-test/1.0\r\nAccept: */*\r\n"+
		"Accept-Encoding: gzip\r\nX-Request-Id: 0123456789abcdef\r\nX-Forwarded-For: 192.0.2.7\r\n"+
		"Cookie: session=0123456789abcdef\r\nTraceparent: 00-4bf92f3577b34da6a3ce9299%08x-00f067aa%08x-01\r\n\r\n",
		target, address, uint32(n+1), uint32(n+1))
}

// readResponses reads so many responses, and says how many bytes they had.
func readResponses(wire net.Conn, count int) int {
	counted := &counter{Reader: wire}
	reader := bufio.NewReader(counted)
	for range count {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			log.Fatal(err)
		}
	}
	return counted.bytes
}

type counter struct {
	io.Reader
	bytes int
}

func (c *counter) Read(into []byte) (int, error) {
	n, err := c.Reader.Read(into)
	c.bytes += n
	return n, err
}
