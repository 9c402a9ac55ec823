module gospan.test/databases

go 1.19
