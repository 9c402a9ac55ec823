//go:build !grpc_old

package main

import "google.golang.org/grpc"

// Calls are tried up to four times in all.
const retrying = `{"methodConfig": [{"name": [{"service": "shapes.Shapes"}], "retryPolicy": {
	"maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.05s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

func retryOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithDefaultServiceConfig(retrying)}
}
