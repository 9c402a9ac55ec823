//go:build go1.27 && !small

package main

import (
	_ "crypto/mldsa"
	_ "encoding/json/jsontext"
	_ "uuid"
)
