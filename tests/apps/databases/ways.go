package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Ways to ask. What is asked for the request `n` has a column q_n.
var ways = map[string]func(ctx context.Context, db *database, n int) error{
	"setup": func(ctx context.Context, db *database, n int) error {
		if _, err := db.ExecContext(ctx, "DROP TABLE IF EXISTS items"); err != nil {
			return err
		}
		_, err := db.ExecContext(ctx, "CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(200))")
		return err
	},
	"nothing":  func(context.Context, *database, int) error { return nil },
	"query":    query,
	"queryrow": queryRow,
	"exec": func(ctx context.Context, db *database, n int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf("DELETE FROM items WHERE id = %d AND name = 'q_%d: it''s secret'", -n, n))
		return err
	},
	"update": func(ctx context.Context, db *database, n int) error {
		text := fmt.Sprintf("UPDATE items SET name = %s WHERE id = 0 AND q_%d.name = 'x'", db.parameter(1), n)
		_, err := db.ExecContext(ctx, strings.Replace(text, "items", fmt.Sprintf("items AS q_%d", n), 1), "y")
		return err
	},
	"prepared": func(ctx context.Context, db *database, n int) error {
		stmt, err := db.PrepareContext(ctx, fmt.Sprintf("SELECT id AS q_%d FROM items WHERE id = %s", n, db.parameter(1)))
		if err != nil {
			return err
		}
		defer stmt.Close()
		for i := 0; i < 3; i++ {
			rows, err := stmt.QueryContext(ctx, i)
			if err != nil {
				return err
			}
			if err := drain(rows); err != nil {
				return err
			}
		}
		return nil
	},
	"prepared-exec": func(ctx context.Context, db *database, n int) error {
		stmt, err := db.Prepare(fmt.Sprintf("DELETE FROM items WHERE id = %s AND name = 'q_%d'", db.parameter(1), n))
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx, -1)
		return err
	},
	"commit":   func(ctx context.Context, db *database, n int) error { return transaction(ctx, db, n, true) },
	"rollback": func(ctx context.Context, db *database, n int) error { return transaction(ctx, db, n, false) },
	"tx-prepared": func(ctx context.Context, db *database, n int) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		stmt, err := tx.PrepareContext(ctx, fmt.Sprintf("SELECT name AS q_%d FROM items WHERE id = %s", n, db.parameter(1)))
		if err != nil {
			return err
		}
		var name string
		if err := stmt.QueryRowContext(ctx, -1).Scan(&name); !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		return tx.Commit()
	},
	"conn": func(ctx context.Context, db *database, n int) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		for i := 0; i < 2; i++ {
			rows, err := conn.QueryContext(ctx, fmt.Sprintf("SELECT id AS q_%d FROM items", n))
			if err != nil {
				return err
			}
			if err := drain(rows); err != nil {
				return err
			}
		}
		return nil
	},
	"background": func(_ context.Context, db *database, n int) error { return query(context.Background(), db, n) },
	"goroutine": func(ctx context.Context, db *database, n int) error {
		failed := make(chan error)
		go func() { failed <- query(ctx, db, n) }()
		return <-failed
	},
	"fan-out": func(ctx context.Context, db *database, n int) error {
		var group sync.WaitGroup
		var failed error
		for i := 0; i < 4; i++ {
			group.Add(1)
			go func() {
				defer group.Done()
				if err := queryRow(ctx, db, n); err != nil {
					failed = err
				}
			}()
		}
		group.Wait()
		return failed
	},
	"long": func(ctx context.Context, db *database, n int) error {
		text := fmt.Sprintf("SELECT id AS q_%d FROM items WHERE name IN ('%s')", n, strings.Repeat("secret', 'secret", 400))
		rows, err := db.QueryContext(ctx, text)
		if err != nil {
			return err
		}
		return drain(rows)
	},
	"syntax": func(ctx context.Context, db *database, n int) error {
		_, err := db.QueryContext(ctx, fmt.Sprintf("SELECT q_%d FRM items", n))
		return err
	},
	"missing": func(ctx context.Context, db *database, n int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO missing_%d (id) VALUES (1)", n))
		return err
	},
	"twice": func(ctx context.Context, db *database, n int) error {
		text := "INSERT INTO items (id, name) VALUES (" + db.parameter(1) + ", " + db.parameter(2) + ")"
		for i := 0; i < 2; i++ {
			if _, err := db.ExecContext(ctx, text, n, fmt.Sprintf("q_%d", n)); err != nil {
				return err
			}
		}
		return nil
	},
	"canceled": func(ctx context.Context, db *database, n int) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		time.AfterFunc(200*time.Millisecond, cancel)
		rows, err := db.QueryContext(ctx, fmt.Sprintf("SELECT %s(5) AS q_%d", sleep(db), n))
		if err != nil {
			return err
		}
		return drain(rows)
	},
	"done": func(ctx context.Context, db *database, n int) error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return query(ctx, db, n)
	},
	"exhausted": func(ctx context.Context, db *database, n int) error {
		return waiting(ctx, db, func(ctx context.Context) error { return query(ctx, db, n) })
	},
	"exhausted-begin": func(ctx context.Context, db *database, n int) error {
		return waiting(ctx, db, func(ctx context.Context) error {
			_, err := db.BeginTx(ctx, nil)
			return err
		})
	},
	"outdated": func(ctx context.Context, db *database, n int) error {
		// The connections that there are have been open too long: all of them are closed, and another one is made.
		db.SetConnMaxLifetime(time.Nanosecond)
		defer db.SetConnMaxLifetime(0)
		for i := 0; i < 5; i++ {
			if err := queryRow(ctx, db, n); err != nil {
				return err
			}
		}
		return nil
	},
	"killed": func(ctx context.Context, db *database, n int) error {
		// A connection that is cut off while it is idle: the next query finds out, and is made again over another one.
		db.SetMaxOpenConns(1)
		defer db.SetMaxOpenConns(16)
		if err := queryRow(ctx, db, n); err != nil {
			return err
		}
		if err := cut(ctx, db); err != nil {
			return err
		}
		return queryRow(ctx, db, n)
	},
}

// Ask for something while the only connection that there may be is used, until a deadline has passed.
func waiting(ctx context.Context, db *database, ask func(context.Context) error) error {
	db.SetMaxOpenConns(1)
	defer db.SetMaxOpenConns(16)
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	return ask(ctx)
}

func sleep(db *database) string {
	if db.parameter(1) == "?" {
		return "SLEEP"
	}
	return "pg_sleep"
}

func query(ctx context.Context, db *database, n int) error {
	rows, err := db.QueryContext(ctx, fmt.Sprintf("SELECT id AS q_%d, name FROM items WHERE id > %s", n, db.parameter(1)), -1)
	if err != nil {
		return err
	}
	return drain(rows)
}

func drain(rows *sql.Rows) error {
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

func queryRow(ctx context.Context, db *database, n int) error {
	var count int
	return db.QueryRowContext(ctx, fmt.Sprintf("SELECT count(*) AS q_%d FROM items", n)).Scan(&count)
}

func transaction(ctx context.Context, db *database, n int, commit bool) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "INSERT INTO items (id, name) VALUES ("+db.parameter(1)+", 'x')", 1000000+n); err != nil {
		return err
	}
	var count int
	if err := tx.QueryRowContext(ctx, fmt.Sprintf("SELECT count(*) AS q_%d FROM items", n)).Scan(&count); err != nil {
		return err
	}
	if commit {
		return tx.Commit()
	}
	return tx.Rollback()
}

// Cut off the only connection that there is.
func cut(ctx context.Context, db *database) error {
	var id int
	text, kill := "SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%d)"
	if db.parameter(1) == "?" {
		text, kill = "SELECT connection_id()", "KILL %d"
	}
	if err := db.QueryRowContext(ctx, text).Scan(&id); err != nil {
		return err
	}
	// By itself: it is an error to whoever does it.
	db.ExecContext(ctx, fmt.Sprintf(kill, id))
	return nil
}
