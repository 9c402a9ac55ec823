module gospan.test/drivers

go 1.26.0
