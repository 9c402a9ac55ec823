module gospan.demo/shop

go 1.22
