package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

func sqlite() (*sql.DB, error) {
	db, err := sql.Open("sqlite3", ":memory:")
	if err == nil {
		db.SetMaxOpenConns(1) // each connection has a database of its own
	}
	return db, err
}

// SQLite by a driver that wraps another one, as those do that count and log, and its errors.
func wrapped() (*sql.DB, error) {
	sql.Register("wrapped", wrapper{})
	db, err := sql.Open("wrapped", ":memory:")
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

type wrapper struct{}

func (wrapper) Open(name string) (driver.Conn, error) {
	conn, err := (&sqlite3.SQLiteDriver{}).Open(name)
	return &wrapping{conn}, err
}

type wrapping struct{ driver.Conn }

func (w *wrapping) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := w.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
	if err != nil {
		err = fmt.Errorf("wrapped again: %w", fmt.Errorf("wrapped: %w", err))
	}
	return result, err
}
