package main

import "net/http"

func init() {
	api := newChi()
	api.Use(withContext)
	api.Get("/status", hello)
	api.Route("/users", func(r chiRouter) {
		r.Get("/", hello)
		r.Get("/{id}", hello)
		r.With(withContext).Post("/{id}/orders/{order:[0-9]+}", hello)
	})
	api.Mount("/admin", admin())
	api.Mount("/plain", http.HandlerFunc(hello))
	router := newChi()
	router.Get("/chi/files/*", hello)
	router.Get("/chi/crash/{id}", crash)
	router.Get("/chi/taken/{id}", seize)
	router.Mount("/chi/api", api)
	handlers["chi"] = router
}

func admin() chiRouter {
	router := newChi()
	router.Get("/logs/{day}", hello)
	return router
}
