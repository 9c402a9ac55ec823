// A program that is only read, never run: it makes the types of lib/pq reachable whose layouts the agent may need, so
// that the linker keeps their descriptors.
package main

import (
	"context"
	"database/sql"
	"os"

	"github.com/lib/pq"
)

var kept = []any{&pq.Error{}, &pq.Driver{}, &pq.Connector{}, pq.Array(nil)}

func main() {
	ctx := context.Background()
	connector, err := pq.NewConnector(os.Args[0])
	if err != nil {
		return
	}
	db := sql.OpenDB(connector)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return
	}
	tx.PrepareContext(ctx, pq.CopyIn(os.Args[0], os.Args...))
	rows, _ := tx.QueryContext(ctx, os.Args[0], kept...)
	for rows.Next() {
		rows.Scan(kept...)
	}
	tx.Commit()
}
