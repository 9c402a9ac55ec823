//go:build !small

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"html/template"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/rpc"
	"net/smtp"
	"net/textproto"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"
)

type noDriver struct{}

func (noDriver) Open(string) (driver.Conn, error) { return nil, errors.New("no database") }

func init() { extra = wide }

// wide uses enough of the standard library for a good part of its types to be needed at run time.
func wide() []any {
	sql.Register("none", noDriver{})
	db, err := sql.Open("none", "")
	if err == nil {
		_, err = db.QueryContext(context.Background(), "SELECT 1")
	}
	file, _ := parser.ParseFile(token.NewFileSet(), "x.go", "package x", parser.ParseComments)
	_ = template.Must(template.New("t").Parse("{{.}}\n")).Execute(os.Stdout, err)
	return []any{
		err, file, db, httptest.NewTLSServer(nil),
		&tls.Config{}, &tls.Conn{}, &net.TCPConn{}, &net.UDPConn{}, &net.Dialer{}, &net.Resolver{},
		&sql.Rows{}, &sql.Stmt{}, &sql.Tx{}, &sql.Conn{},
		&bufio.Reader{}, &bufio.Scanner{}, &textproto.Reader{}, &smtp.Client{}, &exec.Cmd{},
		&ast.File{}, &regexp.Regexp{}, &time.Timer{}, &testing.T{},
		&json.Decoder{}, &xml.Decoder{}, &gob.Decoder{}, &rpc.Server{}, &httputil.ReverseProxy{},
	}
}
