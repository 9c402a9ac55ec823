// A program that is only read, never run: it makes the types of golang.org/x/net reachable whose layouts the agent may
// need, so that the linker keeps their descriptors.
package main

import (
	"context"
	"net/http"
	"os"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"golang.org/x/net/http2/hpack"
)

var kept = []any{
	&hpack.Decoder{}, &hpack.Encoder{}, hpack.HeaderField{},
	&http2.ClientConn{}, &http2.Framer{}, &http2.HeadersFrame{}, &http2.MetaHeadersFrame{}, &http2.Server{},
	&http2.Transport{},
}

func main() {
	served := &http2.Server{}
	server := &http.Server{Addr: os.Args[0], Handler: h2c.NewHandler(http.DefaultServeMux, served)}
	http2.ConfigureServer(server, served)
	go server.ListenAndServe()

	framer := http2.NewFramer(os.Stdout, os.Stdin)
	framer.WriteHeaders(http2.HeadersFrameParam{})
	framer.ReadFrame()
	hpack.NewEncoder(os.Stdout).WriteField(hpack.HeaderField{})

	client := &http.Client{Transport: &http2.Transport{AllowHTTP: true}}
	request, err := http.NewRequestWithContext(context.WithValue(context.Background(), kept[0], kept), "GET", "", nil)
	if err == nil {
		client.Do(request)
	}
}
