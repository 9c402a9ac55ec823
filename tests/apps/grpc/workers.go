//go:build !grpc_old

package main

import "google.golang.org/grpc"

func workerOptions(count uint) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.NumStreamWorkers(uint32(count))}
}
