// A program that is only read, never run: it makes the types of gorilla/mux reachable whose layouts the agent may need,
// so that the linker keeps their descriptors.
package main

import (
	"net/http"
	"os"

	"github.com/gorilla/mux"
)

var kept = []any{&mux.Router{}, &mux.Route{}, &mux.RouteMatch{}}

func main() {
	router := mux.NewRouter()
	handler := func(w http.ResponseWriter, r *http.Request) {
		template, _ := mux.CurrentRoute(r).GetPathTemplate()
		w.Write([]byte(template + mux.Vars(r)["id"]))
	}
	router.HandleFunc("/{id:[0-9]+}", handler).Methods("GET").Host(os.Args[0]).Queries("a", "{b}").Name("c")
	router.PathPrefix("/sub").Subrouter().HandleFunc("/{rest}", handler)
	http.ListenAndServe(os.Args[0], router)
}
