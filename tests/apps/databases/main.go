// A program that asks databases, for tests: each request of its HTTP server is one way to do that, by one of the databases
// that it was given as NAME=DSN. The request's number is in the names of columns, so that the databases' own logs tell
// which query was made for which request.
package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func main() {
	databases := map[string]*database{}
	for _, argument := range os.Args[1:] {
		name, dsn, _ := strings.Cut(argument, "=")
		one, err := open(name, dsn)
		if err != nil {
			fail(err)
		}
		databases[name] = one
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, name, _ := strings.Cut(r.URL.Path[1:], "/")
		way, one := ways[strings.SplitN(r.URL.Path[1:], "/", 2)[0]], databases[name]
		number, _ := strconv.Atoi(r.URL.Query().Get("id"))
		answer := map[string]string{}
		if way == nil || one == nil {
			http.NotFound(w, r)
			return
		}
		if err := way(r.Context(), one, number); err != nil {
			answer["error"] = err.Error()
		}
		json.NewEncoder(w).Encode(answer)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail(err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]int{
		"http": listener.Addr().(*net.TCPAddr).Port, "pid": os.Getpid(),
	})
	go func() {
		// Ends with whoever started it.
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	fail(http.Serve(listener, nil))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// A database, by database/sql, or by an interface of its driver's own.
type database struct {
	*sql.DB
	parameter func(int) string
	native    native
}

var drivers = map[string]string{"pq": "postgres", "pgx": "pgx", "mysql": "mysql", "sqlite": "sqlite"}

func open(name, dsn string) (*database, error) {
	if connect := natives[name]; connect != nil {
		own, err := connect(dsn)
		return &database{native: own}, err
	}
	db, err := sql.Open(drivers[name], dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(16)
	db.SetMaxOpenConns(16)
	one := &database{DB: db, parameter: func(int) string { return "?" }}
	if name == "pq" || name == "pgx" {
		one.parameter = func(number int) string { return "$" + strconv.Itoa(number) }
	}
	return one, nil
}
