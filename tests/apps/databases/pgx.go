package main

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// pgx without database/sql.
type native interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

var natives = map[string]func(dsn string) (native, error){
	"pgxpool": func(dsn string) (native, error) { return pgxpool.New(context.Background(), dsn) },
}
