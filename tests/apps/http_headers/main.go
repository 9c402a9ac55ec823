// Command http_headers sends requests to itself, with the headers that it is told, and answers with those that it is told:
// over HTTP/1, HTTP/2 by net/http, and HTTP/2 by golang.org/x/net. With the same headers in their maps, whichever Go it is.
//
// It prints a JSON line when it is ready (pid), and one for each exchange that it reads, a JSON object a line, when that is
// over. It ends when its input does.
package main

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

// An exchange is a request and what is answered. Headers are as they shall stand in the maps.
type exchange struct {
	Mode     string      `json:"mode"` // http1, h2, h2c
	Path     string      `json:"path"` // tells exchanges apart; a query may follow
	Request  http.Header `json:"request"`
	Response http.Header `json:"response"` // nil: the handler doesn't touch it
	Status   int         `json:"status"`   // 0: WriteHeader isn't called
	Size     int         `json:"size"`     // of the body
	Flush    bool        `json:"flush"`
	Late     http.Header `json:"late"` // set when all the above is done
	Panic    bool        `json:"panic"`
}

// A result is what the client saw.
type result struct {
	Status int         `json:"status"` // 0: no response
	Header http.Header `json:"header"`
}

var exchanges sync.Map // by path

func main() {
	log.SetFlags(0)
	quiet := log.New(io.Discard, "", 0)
	plain := httptest.NewUnstartedServer(http.HandlerFunc(answer))
	secure := httptest.NewUnstartedServer(http.HandlerFunc(answer))
	cleartext := httptest.NewUnstartedServer(h2c.NewHandler(http.HandlerFunc(answer), &http2.Server{}))
	for _, server := range []*httptest.Server{plain, secure, cleartext} {
		server.Config.ErrorLog = quiet
	}
	secure.EnableHTTP2 = true
	plain.Start()
	secure.StartTLS()
	cleartext.Start()
	dial := func(network, address string, _ *tls.Config) (net.Conn, error) { return net.Dial(network, address) }
	client := map[string]*http.Client{
		"http1": plain.Client(),
		"h2":    secure.Client(),
		"h2c":   {Transport: &http2.Transport{AllowHTTP: true, DialTLS: dial}},
	}
	url := map[string]string{"http1": plain.URL, "h2": secure.URL, "h2c": cleartext.URL}

	out, in := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	print := func(line interface{}) {
		if err := out.Encode(line); err != nil {
			log.Fatal(err)
		}
	}
	print(map[string]int{"pid": os.Getpid()})
	for {
		var next exchange
		if err := in.Decode(&next); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		exchanges.Store(strings.SplitN(next.Path, "?", 2)[0], next)
		print(send(client[next.Mode], url[next.Mode], next))
	}
}

func send(client *http.Client, url string, one exchange) result {
	// A POST isn't tried again where the connection breaks.
	request, err := http.NewRequest("POST", url+one.Path, nil)
	if err != nil {
		log.Fatal(err)
	}
	for name, values := range one.Request {
		request.Header[name] = values
	}
	response, err := client.Do(request)
	if err != nil {
		return result{}
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return result{Status: response.StatusCode, Header: response.Header}
}

func answer(w http.ResponseWriter, r *http.Request) {
	found, _ := exchanges.Load(r.URL.Path)
	asked := found.(exchange)
	set(w, asked.Response)
	if asked.Status != 0 {
		w.WriteHeader(asked.Status)
	}
	if asked.Size != 0 {
		_, _ = w.Write(make([]byte, asked.Size))
	}
	if asked.Flush {
		w.(http.Flusher).Flush()
	}
	set(w, asked.Late)
	if asked.Panic {
		panic("asked for")
	}
	for name := range r.Header {
		delete(r.Header, name) // what is told of it has to have been read before
	}
}

func set(w http.ResponseWriter, header http.Header) {
	if header == nil {
		return
	}
	for name, values := range header {
		w.Header()[name] = values
	}
}
