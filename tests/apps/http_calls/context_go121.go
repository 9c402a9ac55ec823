//go:build go1.21

package main

import "context"

func withoutCancel(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

func afterFunc(ctx context.Context, f func()) func() {
	stop := context.AfterFunc(ctx, f)
	return func() { stop() }
}
