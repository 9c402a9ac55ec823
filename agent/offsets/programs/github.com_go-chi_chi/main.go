// A program that is only read, never run: it makes the types of chi reachable whose layouts the agent may need, so that
// the linker keeps their descriptors.
package main

import (
	"net/http"
	"os"

	"github.com/go-chi/chi"
)

var kept = []any{&chi.Mux{}, &chi.Context{}, &chi.RouteParams{}, &chi.ChainHandler{}}

func main() {
	router := chi.NewRouter()
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(chi.RouteContext(r.Context()).RoutePattern() + chi.URLParam(r, "id")))
	}
	router.Use(func(next http.Handler) http.Handler { return next })
	router.Get("/{id}", handler)
	router.Route("/sub", func(r chi.Router) { r.With().Post("/{id:[0-9]+}/*", handler) })
	router.Mount("/mounted", http.HandlerFunc(handler))
	router.NotFound(handler)
	http.ListenAndServe(os.Args[0], router)
}
