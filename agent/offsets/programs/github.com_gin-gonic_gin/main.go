// A program that is only read, never run: it makes the types of gin reachable whose layouts the agent may need, so that
// the linker keeps their descriptors.
package main

import (
	"net/http"
	"os"

	"github.com/gin-gonic/gin"
)

var kept = []any{&gin.Context{}, &gin.Engine{}, &gin.RouterGroup{}, gin.Params{}, &gin.Error{}}

func main() {
	engine := gin.New()
	engine.Use(gin.Recovery())
	group := engine.Group("/" + os.Args[0])
	group.GET("/:id/*rest", func(c *gin.Context) {
		if c.Param("id") == "" {
			c.Request.URL.Path = c.FullPath()
			engine.HandleContext(c)
		}
		c.String(http.StatusOK, os.Args[0])
	})
	group.GET("/wrapped", gin.WrapH(http.DefaultServeMux))
	http.ListenAndServe(os.Args[0], engine)
}
