//go:build go1.21 && !small

package main

import (
	_ "cmp"
	_ "crypto/ecdh"
	_ "log/slog"
	_ "maps"
	_ "slices"
	_ "testing/slogtest"
)
