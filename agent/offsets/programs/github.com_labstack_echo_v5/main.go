// A program that is only read, never run: it makes the types of echo reachable whose layouts the agent may need, so that
// the linker keeps their descriptors.
package main

import (
	"net/http"
	"os"

	"github.com/labstack/echo/v5"
)

var kept = []any{&echo.Echo{}, &echo.Group{}, &echo.Response{}, &echo.HTTPError{}, &echo.Route{}}

func main() {
	server := echo.New()
	server.Use(func(next echo.HandlerFunc) echo.HandlerFunc { return next })
	handler := func(c *echo.Context) error { return c.String(http.StatusOK, c.Path()+c.Param("id")) }
	server.GET("/:id", handler)
	server.Group("/sub").POST("/:id/*", handler)
	http.Handle("/", server)
	server.Start(os.Args[0])
}
