// A program that is only read, never run: it makes the types of go-sql-driver/mysql reachable whose layouts the agent may
// need, so that the linker keeps their descriptors.
package main

import (
	"context"
	"database/sql"
	"os"

	"github.com/go-sql-driver/mysql"
)

var kept = []any{&mysql.Config{}, &mysql.MySQLDriver{}, &mysql.MySQLError{}}

func main() {
	ctx := context.Background()
	config, err := mysql.ParseDSN(os.Args[0])
	if err != nil {
		return
	}
	db, err := sql.Open("mysql", config.FormatDSN())
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
}
