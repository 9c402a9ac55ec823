//go:build go1.23 && !small

package main

import (
	_ "iter"
	_ "structs"
	_ "unique"
)
