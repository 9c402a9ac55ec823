//go:build !old

package main

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

func init() {
	plain, early := echo.New(), echo.New()
	early.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error { return next(c) }
	})
	for name, e := range map[string]*echo.Echo{"/echo": plain, "/echoearly": early} {
		say := func(c echo.Context) error { return c.String(http.StatusOK, "hello\n") }
		e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error { return next(c) }
		})
		group := e.Group(name + "/v1")
		users := group.Group("/users")
		users.GET("/:id", say)
		users.POST("/:id/orders/:order", say)
		group.GET("/files/*", say)
		group.GET("/crash/:id", echo.WrapHandler(http.HandlerFunc(crash)))
		handlers[name[1:]] = e
	}
}
