package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"reflect"
	"unsafe"

	"github.com/godror/godror"
	mssql "github.com/microsoft/go-mssqldb"
)

// Gives connections that nobody answers, of a driver's own type.
type connecting func() driver.Conn

func (connect connecting) Connect(context.Context) (driver.Conn, error) { return connect(), nil }
func (connect connecting) Driver() driver.Driver                        { return nil }

// Connections of SQL Server's, as if they were open. What is asked with an argument of a wrong type is never sent.
func sqlServer() (*sql.DB, error) {
	connector, err := mssql.NewConnector("sqlserver://sa@db.example.com:1434?database=shop")
	return sql.OpenDB(connecting(func() driver.Conn {
		conn := &mssql.Conn{}
		set(conn, "connector", connector)
		set(conn, "connectionGood", true)
		return conn
	})), err
}

// Connections of Oracle's that are not open.
func oracle() (*sql.DB, error) {
	field, _ := reflect.TypeOf(godror.Queue{}).FieldByName("conn")
	return sql.OpenDB(connecting(func() driver.Conn {
		return reflect.New(field.Type.Elem()).Interface().(driver.Conn)
	})), nil
}

// A driver of no database, which fails with the errors of others.
func failing() (*sql.DB, error) {
	return sql.OpenDB(connecting(func() driver.Conn { return failingConn{} })), nil
}

type failingConn struct{ driver.Conn }

func (failingConn) ExecContext(_ context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	switch query {
	case "mssql":
		return nil, mssql.Error{Number: 208, Message: "Invalid object name 'missing'."}
	case "godror":
		failed := &godror.OraErr{}
		set(failed, "code", 942)
		return nil, failed
	}
	return nil, errors.New("no such error")
}

func set(object any, name string, value any) {
	field := reflect.ValueOf(object).Elem().FieldByName(name)
	reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(value))
}
