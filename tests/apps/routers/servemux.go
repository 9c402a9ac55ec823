//go:build go1.22

package main

import "net/http"

func init() {
	handlers["servemux"] = serveMux("/servemux")
	handlers["context"] = withContext(serveMux("/context"))
	handlers["copied"] = copied(serveMux("/copied"))
	handlers["strip"] = http.StripPrefix("/strip", serveMux(""))
	outer := http.NewServeMux()
	outer.Handle("/nested/", http.StripPrefix("/nested", withContext(serveMux(""))))
	outer.Handle("/nested/gin/", ginEngine("/nested/gin"))
	handlers["nested"] = outer
}

func serveMux(prefix string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+prefix+"/users/{id}", hello)
	mux.HandleFunc(prefix+"/files/{rest...}", hello)
	mux.HandleFunc("shop.example.com"+prefix+"/carts/{cart}", hello)
	mux.HandleFunc(prefix+"/crash/{id}", crash)
	mux.HandleFunc(prefix+"/dir/", hello)
	mux.Handle(prefix+"/moved", http.RedirectHandler("/elsewhere", http.StatusFound))
	return mux
}
