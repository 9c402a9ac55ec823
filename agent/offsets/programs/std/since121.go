//go:build go1.21

package main

import (
	"context"
	"errors"
	"log/slog"
)

func init() {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(context.Background()), 0, errors.Join(errors.ErrUnsupported))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	slog.ErrorContext(ctx, "", "error", context.Cause(ctx))
}
