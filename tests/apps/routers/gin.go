package main

import (
	"net/http"

	"github.com/gin-gonic/gin"
)

func init() {
	handlers["gin"] = ginEngine("/gin")
}

func ginEngine(prefix string) *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.RedirectFixedPath = true
	engine.Use(func(c *gin.Context) { c.Next() })
	root := engine.Group(prefix)
	users := root.Group("/users", func(c *gin.Context) { c.Next() })
	users.GET("/:id", func(c *gin.Context) { c.String(http.StatusOK, "user %s\n", c.Param("id")) })
	users.POST("/:id/orders/:order", gin.WrapF(hello))
	root.GET("/files/*path", gin.WrapF(hello))
	root.GET("/static", gin.WrapF(hello))
	root.GET("/status/:code", func(c *gin.Context) { c.AbortWithStatus(http.StatusTeapot) })
	root.GET("/crash/:id", gin.WrapF(crash))
	root.GET("/taken/:id", func(c *gin.Context) { seize(c.Writer, c.Request) })
	root.GET("/again/:id", func(c *gin.Context) {
		c.Request.URL.Path = prefix + "/users/" + c.Param("id")
		engine.HandleContext(c)
	})
	// Another router below gin: what it says, counts.
	root.Any("/inner/*path", gin.WrapH(http.StripPrefix(prefix+"/inner", inner())))
	return engine
}
