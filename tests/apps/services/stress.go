package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A shape is a kind of request that may be hard to write into.
type shape struct {
	name string
	send func(id int64) (*http.Response, string, error)
}

var shared = http.Header{"X-Shared": {"one map"}, "Accept": {"text/plain"}}

type stresser struct {
	plain, secure string
	http1, http2  *http.Client
	proxied       *http.Client
}

func (s *stresser) request(client *http.Client, method, url string, body io.Reader, change func(*http.Request)) (*http.Response, string, error) {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, "", err
	}
	if change != nil {
		change(request)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response, string(text), err
}

// text is some text that depends on an id only.
func text(id int64, size int) string {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(fmt.Sprint(id))))
	return strings.Repeat(sum, size/len(sum)+1)[:size]
}

// unsized hides a reader's size: the body is sent in chunks.
type unsized struct{ io.Reader }

func (s *stresser) shapes() []shape {
	one := func(name string, client *http.Client, base string, method, path string, body func(id int64) io.Reader, change func(*http.Request, int64)) shape {
		return shape{name, func(id int64) (*http.Response, string, error) {
			var content io.Reader
			if body != nil {
				content = body(id)
			}
			return s.request(client, method, fmt.Sprintf("%s%s%d", base, path, id), content, func(r *http.Request) {
				if change != nil {
					change(r, id)
				}
			})
		}}
	}
	http1, http2 := "http://"+s.plain, "https://"+s.secure
	sized := func(id int64) io.Reader { return strings.NewReader(text(id, int(id%9000))) }
	chunked := func(id int64) io.Reader { return unsized{sized(id)} }
	cookie := func(r *http.Request, id int64) { r.Header.Set("Cookie", "c="+text(id, 3700+int(id%500))) }
	// HTTP/1's buffer holds 4 KiB. The first lines alone, which are what is in it, fill it by a long path.
	long := func(id int64) string { return "/echo/" + text(id, 3840+int(id%300)) + "/" }
	own := func(r *http.Request, id int64) {
		value := "00-" + text(id, 32) + "-" + text(id+1, 16) + "-01"
		r.Header.Set("Traceparent", value)
		r.Header.Set("X-Own", value)
	}
	many := func(r *http.Request, id int64) {
		for i := 0; i < 90; i++ {
			r.Header.Set(fmt.Sprintf("X-Many-%d", i), text(id+int64(i), i))
		}
	}
	sharing := func(r *http.Request, id int64) { r.Header = shared }
	large := func(r *http.Request, id int64) { r.URL.RawQuery = "size=100000" }
	trailers := func(r *http.Request, id int64) { r.Trailer = http.Header{"X-Trailer": {text(id, 40)}} }
	var all []shape
	for _, kind := range []struct {
		name   string
		client *http.Client
		base   string
	}{{"http1", s.http1, http1}, {"http2", s.http2, http2}} {
		name, client, base := kind.name, kind.client, kind.base
		all = append(all,
			one(name+" get", client, base, "GET", "/echo/", nil, nil),
			one(name+" post", client, base, "POST", "/echo/", sized, nil),
			one(name+" chunked", client, base, "POST", "/echo/", chunked, nil),
			one(name+" cookie", client, base, "GET", "/echo/", nil, cookie),
			one(name+" own", client, base, "GET", "/echo/", nil, own),
			one(name+" many", client, base, "GET", "/echo/", nil, many),
			one(name+" shared", client, base, "GET", "/echo/", nil, sharing),
			one(name+" large", client, base, "GET", "/echo/", nil, large),
			one(name+" trailers", client, base, "POST", "/echo/", chunked, trailers),
			one(name+" continue", client, base, "POST", "/echo/", sized, func(r *http.Request, id int64) {
				r.Header.Set("Expect", "100-continue")
			}),
			one(name+" proxy", client, base, "POST", "/proxy/echo/", sized, nil),
			shape{name + " long", func(id int64) (*http.Response, string, error) {
				return s.request(client, "GET", base+long(id), nil, nil)
			}},
			shape{name + " given up", func(id int64) (*http.Response, string, error) {
				given, cancel := context.WithTimeout(context.Background(), time.Duration(id%2000)*time.Microsecond)
				defer cancel()
				s.request(client, "GET", base+"/echo/given-up", nil, func(r *http.Request) { *r = *r.WithContext(given) })
				return &http.Response{StatusCode: 200}, "whatever", nil
			}},
		)
	}
	return append(all,
		one("tunnel", s.proxied, http2, "GET", "/echo/", nil, nil),
		shape{"upgrade", s.upgrade},
	)
}

// upgrade talks over a connection that has been taken over.
func (s *stresser) upgrade(id int64) (*http.Response, string, error) {
	request, _ := http.NewRequest("GET", "http://"+s.plain+"/upgrade/", nil)
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "echo")
	response, err := s.http1.Do(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	connection, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		return response, "not upgraded", nil
	}
	reader := bufio.NewReader(connection)
	var said strings.Builder
	for i := int64(0); i < 5; i++ {
		fmt.Fprintln(connection, text(id+i, int(id%200)))
		line, err := reader.ReadString('\n')
		if err != nil {
			return nil, "", err
		}
		said.WriteString(line)
	}
	return response, said.String(), nil
}

// stream reads events for some seconds.
func (s *stresser) stream(seconds int) (string, error) {
	count := seconds * 10
	_, got, err := s.request(s.http1, "GET", fmt.Sprintf("http://%s/events/?count=%d", s.plain, count), nil, nil)
	var wanted strings.Builder
	for i := 0; i < count; i++ {
		fmt.Fprintf(&wanted, "data: %d\n\n", i)
	}
	if err == nil && got != wanted.String() {
		err = fmt.Errorf("wrong events: %d bytes", len(got))
	}
	return got, err
}

// stress sends requests of every shape, many at a time, and prints what came of them: a checksum of all responses that
// doesn't depend on their order, and how many requests of each shape carried a trace context.
func stress() {
	addresses := strings.Split(*next, ",")
	s := &stresser{plain: addresses[0], secure: addresses[1]}
	trusting := &tls.Config{InsecureSkipVerify: true}
	s.http1 = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: *clients, ExpectContinueTimeout: time.Minute,
	}}
	s.http2 = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: trusting}}
	s.proxied = &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: s.plain}),
		TLSClientConfig:   trusting,
		ForceAttemptHTTP2: true,
		// A connection, and so a CONNECT, for each request.
		DisableKeepAlives: true,
	}}
	var shapes []shape
	for _, one := range s.shapes() {
		if *only == "" || *only == one.name {
			shapes = append(shapes, one)
		}
	}
	var failed, sum atomic.Int64
	var all sync.WaitGroup
	var lock sync.Mutex
	carried := map[string]int{}
	note := func(name string, id int64, status int, said string, err error) {
		if err != nil || status >= 300 {
			if failed.Add(1) < 20 {
				log.Printf("%s %d: %d %.100s %v", name, id, status, said, err)
			}
		}
		digest := sha256.Sum256([]byte(fmt.Sprintln(name, id, status, said)))
		sum.Add(int64(binary.LittleEndian.Uint64(digest[:])))
	}
	for i := 0; i < 4; i++ {
		all.Add(1)
		go func(id int64) {
			defer all.Done()
			said, err := s.stream(*seconds)
			note("events", id, 200, said, err)
		}(int64(i))
	}
	eachRequest(func(id int64) {
		of := shapes[id%int64(len(shapes))]
		response, said, err := of.send(id)
		status := 0
		if response != nil {
			status = response.StatusCode
			if response.Header.Get("X-Carried") != "" {
				lock.Lock()
				carried[of.name]++
				lock.Unlock()
			}
		}
		note(of.name, id, status, said, err)
	})
	all.Wait()
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": *requests, "failed": failed.Load(), "carried": carried,
		"checksum": fmt.Sprintf("%016x", uint64(sum.Load())),
	})
}
