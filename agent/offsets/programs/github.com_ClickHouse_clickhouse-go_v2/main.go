// A program that is only read, never run: it makes the types of clickhouse-go reachable whose layouts the agent may need,
// so that the linker keeps their descriptors.
package main

import (
	"context"
	"database/sql"
	"os"

	"github.com/ClickHouse/clickhouse-go/v2"
)

var kept = []any{&clickhouse.Exception{}, &clickhouse.OpError{}, &clickhouse.Options{}}

func main() {
	ctx := context.Background()
	db, err := sql.Open("clickhouse", os.Args[0])
	if err != nil {
		return
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return
	}
	tx.PrepareContext(ctx, os.Args[0])
	rows, _ := tx.QueryContext(ctx, os.Args[0], kept...)
	for rows.Next() {
		rows.Scan(kept...)
	}
	tx.Commit()

	conn, err := clickhouse.Open(&clickhouse.Options{Addr: os.Args})
	if err != nil {
		return
	}
	conn.Exec(ctx, os.Args[0])
}
