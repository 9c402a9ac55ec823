//go:build !only_pgx

package main

import _ "github.com/lib/pq"
