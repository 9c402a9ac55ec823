//go:build !go1.21

package main

import (
	"context"
	"time"
)

// detached is how programs did without context.WithoutCancel.
type detached struct{ context.Context }

func (detached) Deadline() (time.Time, bool) { return time.Time{}, false }
func (detached) Done() <-chan struct{}       { return nil }
func (detached) Err() error                  { return nil }

func withoutCancel(ctx context.Context) context.Context { return detached{ctx} }

func afterFunc(ctx context.Context, f func()) func() { return func() {} }
