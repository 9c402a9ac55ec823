// A program that is only read, never run: it makes the types of pgconn reachable whose layouts the agent may need, so
// that the linker keeps their descriptors.
package main

import (
	"context"
	"os"

	"github.com/jackc/pgconn"
)

var kept = []any{&pgconn.Config{}, &pgconn.PgConn{}, &pgconn.PgError{}}

func main() {
	ctx := context.Background()
	conn, err := pgconn.Connect(ctx, os.Args[0])
	if err == nil {
		conn.Exec(ctx, os.Args[0]).ReadAll()
		conn.Close(ctx)
	}
}
