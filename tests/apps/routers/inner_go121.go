//go:build !go1.22

package main

import "net/http"

func inner() http.Handler { return http.HandlerFunc(hello) }
