package main

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// calls are made by a goroutine that was there before every request.
var calls = make(chan func())

func init() {
	go func() {
		for one := range calls {
			one()
		}
	}()
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
	// A call with the Context as its context.Context: by the handler, by a goroutine that knows nothing but that, and with
	// one that is made from it.
	root.GET("/call/:how", func(c *gin.Context) {
		done := make(chan struct{})
		switch c.Param("how") {
		case "here":
			call(c, c.Query("url"))
		case "worker":
			calls <- func() { defer close(done); call(c, c.Query("url")) }
			<-done
		case "derived":
			ctx, cancel := context.WithTimeout(c, time.Minute)
			defer cancel()
			calls <- func() { defer close(done); call(ctx, c.Query("url")) }
			<-done
		}
	})
	// Another router below gin: what it says, counts.
	root.Any("/inner/*path", gin.WrapH(http.StripPrefix(prefix+"/inner", inner())))
	return engine
}

func call(ctx context.Context, url string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		panic(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
}
