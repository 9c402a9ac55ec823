//go:build grpc_old

package main

import "google.golang.org/grpc"

// Releases before 1.30 serve each stream on a goroutine of its own.
func workerOptions(uint) []grpc.ServerOption { return nil }
