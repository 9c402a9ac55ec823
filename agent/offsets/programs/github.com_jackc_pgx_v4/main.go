// A program that is only read, never run: it makes the types of pgx reachable whose layouts the agent may need, so that
// the linker keeps their descriptors, for its own interface and for that of database/sql.
package main

import (
	"context"
	"database/sql"
	"os"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
	"github.com/jackc/pgx/v4/stdlib"
)

var kept = []any{
	&pgx.Batch{}, &pgx.Conn{}, &pgx.ConnConfig{}, &pgx.TxOptions{}, &pgxpool.Conn{}, &pgxpool.Pool{}, &pgxpool.Tx{},
	&stdlib.Conn{}, &stdlib.Driver{}, &stdlib.Rows{}, &stdlib.Stmt{},
}

func main() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Args[0])
	if err != nil {
		return
	}
	defer conn.Close(ctx)
	conn.Exec(ctx, os.Args[0], kept...)
	conn.Prepare(ctx, os.Args[0], os.Args[0])
	conn.QueryRow(ctx, os.Args[0]).Scan(kept...)
	rows, _ := conn.Query(ctx, os.Args[0])
	for rows.Next() {
		rows.Scan(kept...)
	}
	batch := &pgx.Batch{}
	batch.Queue(os.Args[0])
	conn.SendBatch(ctx, batch).Exec()
	conn.CopyFrom(ctx, pgx.Identifier{os.Args[0]}, os.Args, pgx.CopyFromRows(nil))
	tx, _ := conn.Begin(ctx)
	tx.Commit(ctx)

	pool, err := pgxpool.ParseConfig(os.Args[0])
	if err == nil {
		kept = append(kept, pool)
	}
	new(pgxpool.Pool).Query(ctx, os.Args[0])

	db, err := sql.Open("pgx", os.Args[0])
	if err == nil {
		db.QueryContext(ctx, os.Args[0], kept...)
	}
}
