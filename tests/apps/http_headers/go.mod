module gospan.test/http_headers

go 1.19

require golang.org/x/net v0.33.0

require golang.org/x/text v0.21.0 // indirect
