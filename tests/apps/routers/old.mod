module gospan.test/routers

go 1.19

require (
	github.com/gin-gonic/gin v1.5.0
	github.com/go-chi/chi v4.0.2+incompatible
	github.com/gorilla/context v1.1.1
	github.com/gorilla/mux v1.6.2
	github.com/labstack/echo v3.3.10+incompatible
	github.com/labstack/gommon v0.3.0
	golang.org/x/crypto v0.17.0
	golang.org/x/sys v0.15.0
)

require (
	github.com/gin-contrib/sse v0.1.0 // indirect
	github.com/go-playground/locales v0.12.1 // indirect
	github.com/go-playground/universal-translator v0.16.0 // indirect
	github.com/golang/protobuf v1.3.2 // indirect
	github.com/leodido/go-urn v1.1.0 // indirect
	github.com/mattn/go-colorable v0.1.2 // indirect
	github.com/mattn/go-isatty v0.0.9 // indirect
	github.com/ugorji/go/codec v1.1.7 // indirect
	github.com/valyala/bytebufferpool v1.0.0 // indirect
	github.com/valyala/fasttemplate v1.0.1 // indirect
	golang.org/x/net v0.10.0 // indirect
	golang.org/x/text v0.14.0 // indirect
	gopkg.in/go-playground/validator.v9 v9.29.1 // indirect
	gopkg.in/yaml.v2 v2.2.2 // indirect
)
