// A program with many drivers of database/sql, for tests: it asks a database for each line that it reads, and answers with
// the error, if there was one.
package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
)

// Asked is a line: a driver, and a query without rows or with some.
type Asked struct {
	Driver string `json:"driver"`
	Exec   string `json:"exec"`
	Query  string `json:"query"`
	Args   []any  `json:"args"`
}

func main() {
	databases := map[string]*sql.DB{}
	for name, open := range map[string]func() (*sql.DB, error){
		"clickhouse":        clickHouse,
		"clickhouse native": clickHouseNative,
		"failing":           failing,
		"godror":            oracle,
		"mssql":             sqlServer,
		"sqlite3":           sqlite,
		"wrapped":           wrapped,
	} {
		db, err := open()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		databases[name] = db
	}
	answers := json.NewEncoder(os.Stdout)
	answers.Encode(map[string]int{"pid": os.Getpid()})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var asked Asked
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		answer := map[string]string{}
		if err := ask(databases[asked.Driver], asked); err != nil {
			answer["error"] = err.Error()
		}
		answers.Encode(answer)
	}
}

func ask(db *sql.DB, asked Asked) error {
	if asked.Exec != "" {
		_, err := db.ExecContext(context.Background(), asked.Exec, asked.Args...)
		return err
	}
	rows, err := db.QueryContext(context.Background(), asked.Query, asked.Args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}
