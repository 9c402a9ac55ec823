package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

var backend string

// client keeps enough connections that calls do not wait for each other.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}

// call asks the backend for something on behalf of a request.
func call(ctx context.Context, id, path string) {
	request, err := http.NewRequestWithContext(ctx, "GET", backend+path+"?request="+id, nil)
	if err == nil {
		send(client, request)
	}
}

func send(client *http.Client, request *http.Request) {
	response, err := client.Do(request)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()
}

func id(r *http.Request) string { return r.URL.Query().Get("id") }

// shapes are the ways in which a handler may call; each calls once a request unless it says otherwise.
var shapes = map[string]http.HandlerFunc{
	"/handler":    func(w http.ResponseWriter, r *http.Request) { call(r.Context(), id(r), "/") },
	"/nothing":    func(w http.ResponseWriter, r *http.Request) {}, // no call at all
	"/collect":    func(w http.ResponseWriter, r *http.Request) { runtime.GC() },
	"/no-context": func(w http.ResponseWriter, r *http.Request) { call(context.Background(), id(r), "/") },
	"/twice": func(w http.ResponseWriter, r *http.Request) {
		call(r.Context(), id(r), "/")
		call(context.Background(), id(r), "/")
	},
	"/goroutine": func(w http.ResponseWriter, r *http.Request) {
		wait(1, func() { call(r.Context(), id(r), "/") })
	},
	"/goroutine-no-context": func(w http.ResponseWriter, r *http.Request) {
		wait(1, func() { call(context.Background(), id(r), "/") })
	},
	"/after-a-while-no-context": func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Millisecond) // it goes on on another processor, maybe
		wait(1, func() { call(context.Background(), id(r), "/") })
	},
	"/fan-out": func(w http.ResponseWriter, r *http.Request) {
		wait(5, func() { call(r.Context(), id(r), "/") })
	},
	"/fan-out-no-context": func(w http.ResponseWriter, r *http.Request) {
		wait(5, func() { call(context.Background(), id(r), "/") })
	},
	"/pool": func(w http.ResponseWriter, r *http.Request) { submit(jobs, context.Background(), r) },
	"/pool-with-context": func(w http.ResponseWriter, r *http.Request) {
		submit(jobs, r.Context(), r)
	},
	"/lazy-pool": func(w http.ResponseWriter, r *http.Request) {
		lazyStart.Do(func() { startWorkers(lazyJobs) })
		submit(lazyJobs, context.Background(), r)
	},
	"/nested":     nested,
	"/chain":      func(w http.ResponseWriter, r *http.Request) { wait(1, func() { chain(r) }) },
	"/background": background,
	"/held":       func(w http.ResponseWriter, r *http.Request) { held(r.Context(), id(r)) },
	"/held-derived": func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), key{}, 1)
		derived.Store(fmt.Sprintf("%p", ctx))
		held(ctx, id(r))
	},
	"/derived": func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, derived.Load().(string)) },
	"/release": func(w http.ResponseWriter, r *http.Request) { released <- struct{}{} }, // one that is held
	"/background-no-context": func(w http.ResponseWriter, r *http.Request) {
		request := id(r)
		go func() {
			time.Sleep(30 * time.Millisecond)
			call(context.Background(), request, "/")
		}()
	},
	"/prepared": func(w http.ResponseWriter, r *http.Request) { prepared(r, 128, false) },
	"/pair":     func(w http.ResponseWriter, r *http.Request) { pair(r) },
	"/shared":   func(w http.ResponseWriter, r *http.Request) { prepared(r, 4, true) },
	"/panic":    panics,
	"/moved":    func(w http.ResponseWriter, r *http.Request) { call(r.Context(), id(r), "/moved") },
	"/other": func(w http.ResponseWriter, r *http.Request) {
		call(context.WithValue(r.Context(), key{}, 1), id(r), "/missing")
		call(r.Context(), id(r), "/broken")
	},
}

var (
	released = make(chan struct{})
	derived  atomic.Value // the address of the last context of "/held-derived"
)

// held calls when it is told to.
func held(ctx context.Context, id string) {
	wait(1, func() {
		<-released
		call(ctx, id, "/")
	})
}

type key struct{}

func init() {
	for path, failing := range failures {
		shapes[path] = failing
	}
}

// wait runs something in so many goroutines.
func wait(number int, what func()) {
	var group sync.WaitGroup
	for i := 0; i < number; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			what()
		}()
	}
	group.Wait()
}

type job struct {
	ctx  context.Context
	id   string
	done chan struct{}
}

var (
	jobs      = make(chan job)
	lazyJobs  = make(chan job, 64)
	lazyStart sync.Once
)

func startWorkers(from chan job) {
	for i := 0; i < 8; i++ {
		go func() {
			for one := range from {
				call(one.ctx, one.id, "/")
				close(one.done)
			}
		}()
	}
}

func submit(to chan job, ctx context.Context, r *http.Request) {
	one := job{ctx, id(r), make(chan struct{})}
	to <- one
	<-one.done
}

// nested: middleware that replaces the request, around another mux.
func nested(w http.ResponseWriter, r *http.Request) {
	inner := http.NewServeMux()
	inner.HandleFunc("/nested", func(w http.ResponseWriter, r *http.Request) {
		wait(1, func() { call(r.Context(), id(r), "/") })
	})
	http.StripPrefix("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/nested"
		inner.ServeHTTP(w, r)
	})).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, "middleware")))
}

// chain: the context is twenty contexts away from the request's.
func chain(r *http.Request) {
	ctx := r.Context()
	for i := 0; i < 20; i++ {
		var cancel context.CancelFunc = func() {}
		switch i % 4 {
		case 0:
			ctx, cancel = context.WithTimeout(ctx, time.Minute)
		case 1:
			ctx = context.WithValue(ctx, key{}, i)
		case 2:
			ctx = withoutCancel(ctx)
		case 3:
			ctx, cancel = context.WithCancel(ctx)
			defer afterFunc(ctx, func() {})()
		}
		defer cancel()
	}
	call(ctx, id(r), "/")
}

// background: what the request started goes on after it.
func background(w http.ResponseWriter, r *http.Request) {
	ctx, request := context.WithValue(withoutCancel(r.Context()), key{}, 1), id(r)
	go func() {
		time.Sleep(30 * time.Millisecond)
		call(ctx, request, "/")
	}()
}

// panics: a call that panics in the middle, at two depths, and one after it.
func panics(w http.ResponseWriter, r *http.Request) {
	trace := &httptrace.ClientTrace{GetConn: func(string) { panic("in a hook") }}
	for depth := 0; depth < 2; depth++ {
		func() {
			defer func() { _ = recover() }()
			deep(depth*50, func() { call(httptrace.WithClientTrace(r.Context(), trace), id(r), "/panics") })
		}()
	}
	call(context.Background(), id(r), "/")
}

func deep(depth int, what func()) {
	if depth == 0 {
		what()
		return
	}
	deep(depth-1, what)
}
