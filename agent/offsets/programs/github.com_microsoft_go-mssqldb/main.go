// A program that is only read, never run: it makes the types of go-mssqldb reachable whose layouts the agent may need, so
// that the linker keeps their descriptors.
package main

import (
	"context"
	"database/sql"
	"os"

	mssql "github.com/microsoft/go-mssqldb"
)

var kept = []any{&mssql.Conn{}, &mssql.Connector{}, &mssql.Driver{}, mssql.Error{}}

func main() {
	ctx := context.Background()
	connector, err := mssql.NewConnector(os.Args[0])
	if err != nil {
		return
	}
	db := sql.OpenDB(connector)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return
	}
	tx.PrepareContext(ctx, mssql.CopyIn(os.Args[0], mssql.BulkOptions{}, os.Args...))
	rows, _ := tx.QueryContext(ctx, os.Args[0], kept...)
	for rows.Next() {
		rows.Scan(kept...)
	}
	tx.Commit()
}
