package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// pgx without database/sql.
type native = *pgxpool.Pool

var natives = map[string]func(dsn string) (native, error){
	"pgxpool": func(dsn string) (native, error) { return pgxpool.New(context.Background(), dsn) },
}

// Ways to ask by pgx's own interface.
func init() {
	for name, way := range map[string]func(ctx context.Context, db native, n int) error{
		"native-setup": func(ctx context.Context, db native, n int) error {
			if _, err := db.Exec(ctx, "DROP TABLE IF EXISTS things"); err != nil {
				return err
			}
			_, err := db.Exec(ctx, "CREATE TABLE things (id INTEGER PRIMARY KEY, name VARCHAR(200))")
			return err
		},
		"native-query": func(ctx context.Context, db native, n int) error {
			rows, err := db.Query(ctx, fmt.Sprintf("SELECT id AS q_%d FROM things WHERE id > $1", n), -1)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
			}
			return rows.Err()
		},
		"native-queryrow": func(ctx context.Context, db native, n int) error {
			var count int
			return db.QueryRow(ctx, fmt.Sprintf("SELECT count(*) AS q_%d FROM things", n)).Scan(&count)
		},
		"native-exec": func(ctx context.Context, db native, n int) error {
			_, err := db.Exec(ctx, fmt.Sprintf("DELETE FROM things WHERE id = %d AND name = 'q_%d: secret'", -n, n))
			return err
		},
		"native-commit": func(ctx context.Context, db native, n int) error {
			tx, err := db.Begin(ctx)
			if err != nil {
				return err
			}
			defer tx.Rollback(ctx)
			var id int
			text := fmt.Sprintf("INSERT INTO things AS q_%d (id, name) VALUES ($1, 'x') RETURNING id", n)
			if err := tx.QueryRow(ctx, text, n).Scan(&id); err != nil {
				return err
			}
			return tx.Commit(ctx)
		},
		"native-batch": func(ctx context.Context, db native, n int) error {
			batch := &pgx.Batch{}
			batch.Queue(fmt.Sprintf("SELECT 1 AS q_%d", n))
			batch.Queue(fmt.Sprintf("SELECT 2 AS q_%d", n))
			return db.SendBatch(ctx, batch).Close()
		},
		"native-copy": func(ctx context.Context, db native, n int) error {
			_, err := db.CopyFrom(ctx, pgx.Identifier{"things"}, []string{"id", "name"},
				pgx.CopyFromRows([][]any{{1000 + n, "secret"}}))
			return err
		},
		"native-syntax": func(ctx context.Context, db native, n int) error {
			_, err := db.Query(ctx, fmt.Sprintf("SELECT q_%d FRM things", n))
			return err
		},
		"native-twice": func(ctx context.Context, db native, n int) error {
			var id int
			text := "INSERT INTO things (id) VALUES ($1) RETURNING id"
			db.QueryRow(ctx, text, n).Scan(&id)
			return db.QueryRow(ctx, text, n).Scan(&id)
		},
		"native-missing": func(ctx context.Context, db native, n int) error {
			_, err := db.Exec(ctx, fmt.Sprintf("INSERT INTO missing_%d (id) VALUES (1)", n))
			return err
		},
	} {
		ways[name] = func(way func(ctx context.Context, db native, n int) error) func(context.Context, *database, int) error {
			return func(ctx context.Context, db *database, n int) error { return way(ctx, db.native, n) }
		}(way)
	}
}
