package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// request is one to send, and what its line says of it.
type request struct {
	Method    string  `json:"method"`
	Target    string  `json:"target"` // as it stands in the request line
	Host      string  `json:"host"`   // as net/http's Request.Host has to say it
	UserAgent *string `json:"user_agent"`
	traceContext
	Headers   []header `json:"-"` // all others
	Body      string   `json:"-"`
	Chunked   bool     `json:"chunked"`
	BodyBytes int      `json:"body_bytes"`
	Fault     bool     `json:"fault"` // the handler panics, aborts or takes the connection
}

// header is a name, spelled as it is sent, and its value.
type header struct{ name, value string }

// printable is the request with every byte as a code point, so that JSON can hold it.
func (r request) printable() request {
	r.Target, r.Host = latin1(r.Target), latin1(r.Host)
	if r.UserAgent != nil {
		agent := latin1(*r.UserAgent)
		r.UserAgent = &agent
	}
	r.BodyBytes = len(r.Body)
	return r
}

// randomRequest is request n of a seed: whatever clients send, in other proportions.
func randomRequest(seed uint64, n int, address, mode string, faults float64) request {
	random := dice{rand.New(rand.NewPCG(seed, uint64(n)))}
	binary := mode != "h2" && mode != "h2c" // HTTP/2 clients refuse bytes that HTTP/1 servers take

	made := request{Method: "GET", Host: address, traceContext: random.traceContext(binary)}
	if random.chance(0.4) {
		made.Method = random.of("POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "PURGE", "get", "VERSION-CONTROL")
	}
	random.target(&made, n, binary)
	random.query(&made, n, binary)
	random.userAgent(&made, binary)
	for i := range random.of2(random.IntN(10), 100, 0.02) {
		made.Headers = append(made.Headers, header{fmt.Sprintf("X-Header-%d", i), strings.Repeat("v", random.IntN(60))})
	}
	if made.Method == "POST" || made.Method == "PUT" || made.Method == "PATCH" {
		made.Body = strings.Repeat("body ", random.IntN(400))
		made.Chunked = made.Body != "" && random.chance(0.3)
	}
	if random.chance(faults) {
		made.Fault = true
		made.Target = fmt.Sprintf("/do?n=%d&%s", n, random.of("panic=before", "panic=after", "panic=abort", "panic=exit", "hijack"))
	}
	return made
}

// dice is where everything random comes from.
type dice struct{ *rand.Rand }

func (d dice) chance(share float64) bool { return d.Float64() < share }

func (d dice) of(values ...string) string { return values[d.IntN(len(values))] }

// of2 is usual, or else, for a share of the calls, rare.
func (d dice) of2(usual, rare int, share float64) int {
	if d.chance(share) {
		return rare
	}
	return usual
}

func (d dice) hex(digits int) string {
	text := make([]byte, digits)
	for i := range text {
		text[i] = "0123456789abcdef"[d.IntN(16)]
	}
	text[0] = "123456789abcdef"[d.IntN(15)] // never all zeros
	return string(text)
}

// target sets a path, and a host where the routes know one.
func (d dice) target(made *request, n int, binary bool) {
	switch d.IntN(16) {
	case 0, 1, 2, 3:
		made.Target = fmt.Sprintf("/items/%d", n)
	case 4:
		made.Target = fmt.Sprintf("/files/a/b/%d.txt", n)
	case 5:
		made.Target = fmt.Sprintf("/orders/%d/lines/%d", n, d.IntN(10))
	case 6:
		made.Target = fmt.Sprintf("/static/%d%%2Fsmall%%20print", n)
	case 7:
		made.Target = fmt.Sprintf("/nothing/%d", n)
	case 8:
		made.Target, made.Host = fmt.Sprintf("/v1/%d", n), d.of("api.example.com", "api.example.com:8080")
	case 9:
		made.Target, made.Host = fmt.Sprintf("/carts/%d", n), "shop.example.com"
	case 10:
		made.Target = fmt.Sprintf("/stripped/%d", n)
	case 11:
		made.Target = fmt.Sprintf("/items//%d", n) // redirected to its clean form
	case 12:
		made.Target = fmt.Sprintf("/static/%d/%s", n, strings.Repeat("long/", d.IntN(600)))
	case 13:
		made.Target = fmt.Sprintf("/static/%d", n)
		if binary {
			made.Target += "/\xff\xfe\xe9\x80"
		}
	default:
		made.Target = "/do"
	}
	if binary && d.chance(0.02) {
		made.Host = "absolute.example.com"
		made.Target = "http://" + made.Host + made.Target
	}
}

// query adds one, with what it asks the handler to do.
func (d dice) query(made *request, n int, binary bool) {
	var asked []string
	ask := func(share float64, format string, values ...any) {
		if d.chance(share) {
			asked = append(asked, fmt.Sprintf(format, values...))
		}
	}
	ask(0.5, "n=%d", n)
	ask(0.4, "status=%s", d.of("200", "201", "202", "204", "299", "301", "304", "400", "401", "403", "404", "409",
		"418", "429", "499", "500", "501", "502", "503", "504", "599"))
	ask(0.2, "size=%d", d.IntN(20000))
	ask(0.1, "chunks=%d", d.IntN(5))
	ask(0.05, "nobody")
	ask(0.05, "read")
	ask(0.05, "sleep=%dus", d.IntN(5000))
	ask(0.05, "header=%d", d.IntN(50))
	ask(0.03, "mutate")
	ask(0.03, "context")
	ask(0.03, "inform=103")
	ask(0.03, "padding=%s", strings.Repeat("p", d.IntN(2000)))
	if binary {
		ask(0.02, "bytes=\xe9\xff")
	}
	ask(0.02, "wrong=%%zz")
	if len(asked) > 0 || d.chance(0.05) {
		made.Target += "?" + strings.Join(asked, "&")
	}
}

func (d dice) userAgent(made *request, binary bool) {
	agent := "gospan-test/1.0 (random)"
	switch d.IntN(10) {
	case 0:
		return
	case 1:
		agent = "Mozilla/5.0 " + strings.Repeat("(long; very) ", d.IntN(60))
		agent = strings.TrimSpace(agent)
	case 2:
		agent = "agent é ü 漢字"
		if binary {
			agent = "agent \xe9\xff"
		}
	}
	made.UserAgent = &agent
}
