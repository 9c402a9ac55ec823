package main

import (
	"net/http"

	"github.com/gorilla/mux"
)

func init() {
	router := mux.NewRouter().StrictSlash(true)
	router.HandleFunc("/mux/users/{id}", hello).Methods("GET")
	router.HandleFunc("/mux/numbers/{number:[0-9]+}", hello)
	router.HandleFunc("/mux/dir/", hello)
	router.HandleFunc("/mux/crash/{id}", crash)
	router.HandleFunc("/mux/taken/{id}", seize)
	sub := router.PathPrefix("/mux/v1").Subrouter()
	orders := sub.PathPrefix("/orders").Subrouter()
	orders.HandleFunc("/{order}/lines/{line}", hello).Methods("POST")
	orders.HandleFunc("/{order}/lines/{line}", hello).Methods("GET")
	sub.PathPrefix("/files/").HandlerFunc(hello)
	other := router.PathPrefix("/mux/other").Subrouter()
	other.HandleFunc("/known", hello)
	other.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
	})
	handlers["mux"] = router
}
