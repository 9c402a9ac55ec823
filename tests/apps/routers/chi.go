//go:build !old

package main

import "github.com/go-chi/chi/v5"

type (
	chiRouter = chi.Router
)

func newChi() chi.Router { return chi.NewRouter() }
