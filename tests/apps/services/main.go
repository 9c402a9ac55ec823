// Command services is a system of three services for gospan's tests, and the load for it: gin in front, net/http in the
// middle, HTTP/2 over TLS at the back. Each request goes through all of them, and what comes back tells of it.
//
//	services back | middle -next ADDRESS | front -next ADDRESS [-log FILE]
//	services load -next ADDRESS -clients N -requests N
//	services idle
//	services stress -clients N -seconds N -variants N -learn FILE [-only SHAPE]
//	services stress -clients N -seconds N -variants N -check FILE -requests N [-rare N] [-limit TIME] [-only SHAPE]
//
// A service prints the address on which it listens, and serves until its standard input ends. Load prints a JSON line:
// requests, failures, and a checksum of all responses that doesn't depend on their order.
package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
)

var (
	next     = flag.String("next", "", "the address of the service that comes next")
	clients  = flag.Int("clients", 1, "requests at a time")
	requests = flag.Int("requests", 1, "requests in all")
	seconds  = flag.Int("seconds", 1, "for how long events are listened to")
	variants = flag.Int("variants", 16, "of each shape")
	learn    = flag.String("learn", "", "send each variant once, and write what came back to this file")
	check    = flag.String("check", "", "compare what comes back with this file")
	rare     = flag.Int("rare", 1, "one request in so many has one of all shapes, the others a common one")
	limit    = flag.Duration("limit", 24*time.Hour, "send nothing more after this time")
	only     = flag.String("only", "", "requests of this shape alone")
	seen     = flag.String("log", "", "write a line for each request to this file: its path, traceparent and tracestate")
)

func main() {
	role := os.Args[1]
	flag.CommandLine.Parse(os.Args[2:])
	log.SetFlags(0)
	switch role {
	case "load":
		load()
	case "idle":
		fmt.Println("idle")
		io.Copy(io.Discard, os.Stdin)
	case "stress":
		stress()
	case "front":
		gin.SetMode(gin.ReleaseMode)
		router := gin.New()
		router.GET("/front/:id", func(c *gin.Context) {
			forward(c.Writer, c.Request, "http://"+*next+"/middle/"+c.Param("id"), http.DefaultClient)
		})
		serve(router, nil)
	case "middle":
		transport := &http.Transport{
			ForceAttemptHTTP2: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // its certificate was made a moment ago
		}
		client := &http.Client{Transport: transport}
		mux := http.NewServeMux()
		mux.HandleFunc("GET /middle/{id}", func(w http.ResponseWriter, r *http.Request) {
			forward(w, r, "https://"+*next+"/back/"+r.PathValue("id"), client)
		})
		serve(mux, nil)
	case "back":
		mux := http.NewServeMux()
		mux.HandleFunc("GET /back/{id}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %x", r.Proto, sha256.Sum256([]byte(r.PathValue("id"))))
		})
		serve(mux, &tls.Config{Certificates: []tls.Certificate{selfSigned()}, NextProtos: []string{"h2"}})
	default:
		log.Fatalf("no such service: %s", role)
	}
}

// serve listens, says where, and serves until standard input ends.
func serve(handler http.Handler, secure *tls.Config) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: noted(handler), TLSConfig: secure}
	fmt.Println(listener.Addr())
	go func() {
		if secure != nil {
			log.Fatal(server.ServeTLS(listener, "", ""))
		}
		log.Fatal(server.Serve(listener))
	}()
	io.Copy(io.Discard, os.Stdin)
}

// noted writes down which trace context requests come with.
func noted(handler http.Handler) http.Handler {
	if *seen == "" {
		return handler
	}
	file, err := os.Create(*seen)
	if err != nil {
		log.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, value := range append(r.Header["Traceparent"], r.Header["traceparent"]...) {
			fmt.Fprintln(file, r.URL.Path, value, strings.Join(r.Header["Tracestate"], ","))
		}
		handler.ServeHTTP(w, r)
	})
}

// forward asks the next service, and gives its answer.
func forward(w http.ResponseWriter, r *http.Request, url string, client *http.Client) {
	request, err := http.NewRequestWithContext(r.Context(), "GET", url, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	response, err := client.Do(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.WriteHeader(response.StatusCode)
	fmt.Fprintf(w, "%s ", r.URL.Path)
	io.Copy(w, response.Body)
}

// load sends requests, each with an id of its own.
func load() {
	var failed, sum atomic.Int64
	transport := &http.Transport{MaxIdleConnsPerHost: *clients}
	client := &http.Client{Transport: transport}
	eachRequest(func(id int64) {
		response, err := client.Get(fmt.Sprintf("http://%s/front/%d", *next, id))
		if err != nil {
			failed.Add(1)
			log.Print(err)
			return
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		wanted := fmt.Sprintf("/front/%d /middle/%d HTTP/2.0 %x", id, id, sha256.Sum256([]byte(fmt.Sprint(id))))
		if err != nil || string(body) != wanted {
			failed.Add(1)
			log.Printf("%d: %s %v", id, body, err)
		}
		digest := sha256.Sum256(body)
		sum.Add(int64(binary.LittleEndian.Uint64(digest[:])))
	})
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": *requests, "failed": failed.Load(), "checksum": fmt.Sprintf("%016x", uint64(sum.Load())),
	})
}

// eachRequest does something for each of the requests, as many at a time as there are clients.
func eachRequest(do func(id int64)) {
	var sent atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for i := 0; i < *clients; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for id := sent.Add(1); id <= int64(*requests) && time.Since(began) < *limit; id = sent.Add(1) {
				do(id)
			}
		}()
	}
	all.Wait()
}
