package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
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

// A shape is a kind of request that may be hard to write into. It comes in variants, which are told apart by an id.
type shape struct {
	name string
	send func(id int64) (*http.Response, string, error)
}

// The shapes that most requests have: what there is most of in the field, and what costs least.
var common = []string{"http1 get", "http2 get", "http1 get"}

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

// spread gives a number below some limit: with the ids of all variants numbers from all of that range.
func spread(id int64, limit int) int {
	return int(id) * limit / *variants
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
	sized := func(id int64) io.Reader { return strings.NewReader(text(id, spread(id, 9000))) }
	chunked := func(id int64) io.Reader { return unsized{sized(id)} }
	// Connections have buffers of 4 KiB. In HTTP/2's these cookies, compressed to 0.7 of their length, leave a little room, too
	// little, or none.
	cookie := func(r *http.Request, id int64) {
		size := 3700
		if r.URL.Scheme == "https" {
			size = 5500
		}
		r.Header.Set("Cookie", "c="+text(id, size+spread(id, 500)))
	}
	// The first lines alone, which are what is in HTTP/1's buffer by then, fill it by a long path.
	long := func(id int64) string { return "/echo/" + text(id, 3840+spread(id, 300)) + "/" }
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
			together(one(name+" shared", client, base, "GET", "/echo/", nil, sharing), 4),
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
				given, cancel := context.WithTimeout(context.Background(), time.Duration(spread(id, 2000))*time.Microsecond)
				defer cancel()
				s.request(client, "GET", base+"/echo/given-up", nil, func(r *http.Request) { *r = *r.WithContext(given) })
				return &http.Response{StatusCode: 200}, "whatever", nil
			}},
		)
	}
	return append(all,
		// A connection, a CONNECT and a handshake for each request.
		one("tunnel", s.proxied, http2, "GET", "/echo/", nil, nil),
		shape{"upgrade", s.upgrade},
	)
}

// together sends several of a kind at a time, and gives all that they say; the response is one of theirs.
func together(kind shape, times int) shape {
	return shape{kind.name, func(id int64) (*http.Response, string, error) {
		responses, said, errs := make([]*http.Response, times), make([]string, times), make([]error, times)
		var all sync.WaitGroup
		for i := range said {
			all.Add(1)
			go func(i int) {
				defer all.Done()
				responses[i], said[i], errs[i] = kind.send(id)
			}(i)
		}
		all.Wait()
		for i, response := range responses {
			if errs[i] != nil || response.StatusCode >= 300 {
				return response, said[i], errs[i]
			}
		}
		return responses[0], strings.Join(said, ""), nil
	}}
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
		fmt.Fprintln(connection, text(id+i, spread(id, 200)))
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

// answers are what came back, as checksums, by shape and variant.
type answers struct {
	lock sync.Mutex
	Sums map[string][]string
}

// read takes those of a former run.
func (a *answers) read(path string) {
	content, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(content, &a.Sums)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func (a *answers) write(path string) {
	content, err := json.Marshal(a.Sums)
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func (a *answers) note(name string, id int64, sum string) {
	a.lock.Lock()
	defer a.lock.Unlock()
	if a.Sums[name] == nil {
		a.Sums[name] = make([]string, *variants)
	}
	a.Sums[name][id] = sum
}

// stress sends requests of every shape, many at a time, to a server in its own process: a processor that is emulated takes
// long to go from one process to another. With -learn each variant of each shape is sent once, and what
// comes back is kept; with -check it is compared with that, answer by answer. It prints how many requests there were, and by
// shape how many of them carried a trace context.
func stress() {
	s := &stresser{}
	s.plain, s.secure = echo()
	trusting := &tls.Config{InsecureSkipVerify: true}
	s.http1 = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: *clients, ExpectContinueTimeout: time.Minute,
	}}
	s.http2 = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: trusting}}
	s.proxied = &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: s.plain}),
		TLSClientConfig:   trusting.Clone(), // the other one gets the protocols of HTTP/2
		DisableKeepAlives: true,
	}}
	// One connection for HTTP/2 is there before many requests at a time ask for one each. Servers wait for two seconds only
	// until a client has said its settings, which is not long where a processor is emulated.
	for tries := 0; tries < 10; tries++ {
		if _, _, err := s.request(s.http2, "GET", "https://"+s.secure+"/echo/first", nil, nil); err == nil {
			break
		}
	}
	var shapes []shape
	byName := map[string]shape{}
	for _, one := range s.shapes() {
		byName[one.name] = one
		if *only == "" || *only == one.name {
			shapes = append(shapes, one)
		}
	}
	known := &answers{Sums: map[string][]string{}}
	if *check != "" {
		known.read(*check)
	}
	if *learn != "" {
		*requests = len(shapes) * *variants
	}
	var failed, done atomic.Int64
	var all sync.WaitGroup
	var lock sync.Mutex
	sent, carried := map[string]int{}, map[string]int{}
	fail := func(name string, id int64, status int, said string, err error) {
		if failed.Add(1) < 20 {
			log.Printf("%s %d: %d %.100s %v", name, id, status, said, err)
		}
	}
	for i := 0; i < 4; i++ {
		all.Add(1)
		go func(id int64) {
			defer all.Done()
			if said, err := s.stream(*seconds); err != nil {
				fail("events", id, 0, said, err)
			}
		}(int64(i))
	}
	began := time.Now()
	eachRequest(func(number int64) {
		number--
		of, id := shapes[number%int64(len(shapes))], number/int64(len(shapes))%int64(*variants)
		if *rare > 1 {
			id = number / int64(*rare)
			if number%int64(*rare) != 0 {
				of, id = byName[common[number%int64(len(common))]], number
			} else {
				of, id = shapes[id%int64(len(shapes))], id/int64(len(shapes))
			}
			id %= int64(*variants)
		}
		response, said, err := of.send(id)
		status, carries := 0, 0
		if response != nil {
			status = response.StatusCode
			if response.Header.Get("X-Carried") != "" {
				carries = 1
			}
		}
		lock.Lock()
		sent[of.name]++
		carried[of.name] += carries
		lock.Unlock()
		sum := fmt.Sprintf("%d %x", status, sha256.Sum256([]byte(said)))
		if err != nil || status >= 300 {
			fail(of.name, id, status, said, err)
		} else if *learn != "" {
			known.note(of.name, id, sum)
		} else if known.Sums[of.name][id] != sum {
			fail(of.name, id, status, said, errors.New("it is another answer than without the agent"))
		}
		if so := done.Add(1); so%5000 == 0 {
			log.Printf("    %d requests after %.0f s, %d failed", so, time.Since(began).Seconds(), failed.Load())
		}
	})
	all.Wait()
	if *learn != "" {
		known.write(*learn)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": done.Load(), "failed": failed.Load(), "sent": sent, "carried": carried,
		"seconds": time.Since(began).Seconds(),
	})
}
