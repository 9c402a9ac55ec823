//go:build go1.24 && !small

package main

import (
	_ "crypto/fips140"
	_ "crypto/hkdf"
	_ "crypto/mlkem"
	_ "crypto/pbkdf2"
	_ "crypto/sha3"
	_ "weak"
)
