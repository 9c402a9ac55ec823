//go:build grpc_old

package main

import "google.golang.org/grpc"

// Releases before 1.40 don't retry unless told so by the environment.
func retryOptions() []grpc.DialOption { return nil }
