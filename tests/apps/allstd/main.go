// A program to be read, not run: it has every kind of type and of function whose reading could go wrong.
//
// Built as it is, it links the whole standard library; with the tag `small` only what net/http needs.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"sync/atomic"

	dotted "example.com/allstd/dotted.v3"
)

// Pair is generic; its instances are types of their own.
type Pair[K comparable, V any] struct {
	Key   K
	Value V
	Next  *Pair[K, V]
}

// Nested holds structs by value, three deep.
type Nested struct {
	Head byte
	dotted.Node
	Pairs [3]Pair[string, http.Request]
}

// Table is a map type with keys and elements too large to be kept in its groups.
type Table map[[200]byte]Nested

// Seen is one with small ones.
type Seen map[uint16]bool

// Two functions declare different types of the same name, as Go allows.
func local1() any {
	type local struct {
		A byte
		B int
	}
	return &local{}
}

func local2() any {
	type local struct {
		B int
		A byte
	}
	return &local{}
}

// The three sizes of frame that have stack checks of their own (cmd/internal/obj/x86: stacksplit).
//
//go:noinline
func hugeFrame(n int) int {
	var room [70000]byte
	room[n] = 1
	return sum(room[:])
}

//go:noinline
func largeFrame(n int) int {
	var room [3000]byte
	room[n] = 1
	return sum(room[:])
}

//go:noinline
func smallFrame(n int) int {
	var room [16]byte
	room[n&15] = 1
	return sum(room[:])
}

// A leaf without a frame, beginning with a loop.
//
//go:noinline
func sum(room []byte) (total int) {
	for _, b := range room {
		total += int(b)
	}
	return total
}

//go:noinline
func manyReturns(n int, s string) (int, error) {
	switch n {
	case 0:
		return sum([]byte(s)), nil
	case 1:
		return 0, os.ErrNotExist
	case 2:
		return len(s), fmt.Errorf("two: %s", s)
	}
	return n, nil
}

//go:noinline
func noReturn(s string) {
	panic(errors.New(s))
}

// extra adds what a larger program uses.
var extra = func() []any { return nil }

func main() {
	if len(os.Args) > 3 {
		noReturn(os.Args[1])
	}
	values := []any{
		&Nested{}, Table{}, Seen{}, &Pair[int, string]{}, &Pair[string, *url.URL]{}, local1(), local2(),
		&http.Server{}, &http.Client{}, &http.Transport{}, &http.Request{}, &http.Response{}, &http.Cookie{},
		&atomic.Pointer[http.Request]{},
	}
	for _, value := range append(values, extra()...) {
		fmt.Println(reflect.TypeOf(value))
	}
	node := dotted.Node{}
	n := len(os.Args)
	fmt.Println(node.Parse("x"), hugeFrame(n), largeFrame(n), smallFrame(n))
	fmt.Println(manyReturns(n, "x"))
	fmt.Println(http.ListenAndServe("", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.URL.Path)
	})))
}
