module gospan.test/http_client

go 1.24
