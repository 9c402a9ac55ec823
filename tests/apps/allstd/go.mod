module example.com/allstd

go 1.19
