module grpc

go 1.19
