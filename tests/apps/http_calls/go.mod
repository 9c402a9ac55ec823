module gospan.test/http_calls

go 1.19
