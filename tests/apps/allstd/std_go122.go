//go:build go1.22 && !small

package main

import (
	_ "go/version"
	_ "math/rand/v2"
)
