// Command sdk is an HTTP server that makes spans of its own, by OpenTelemetry's SDK, for gospan's tests.
package main

import (
	"log"
	"net/http"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	otel.SetTracerProvider(trace.NewTracerProvider())
	tracer := otel.Tracer("sdk")
	log.Fatal(http.ListenAndServe("127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, span := tracer.Start(r.Context(), r.URL.Path)
		span.End()
	})))
}
