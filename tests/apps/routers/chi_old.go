//go:build old

package main

import "github.com/go-chi/chi"

type chiRouter = chi.Router

func newChi() chi.Router { return chi.NewRouter() }
