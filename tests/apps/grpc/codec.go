package main

import (
	"encoding/json"

	"google.golang.org/grpc/encoding"
)

// jsonCodec needs no generated code, so that the same program builds with every release of grpc.
type jsonCodec struct{}

func (jsonCodec) Name() string                          { return "json" }
func (jsonCodec) String() string                        { return "json" }
func (jsonCodec) Marshal(v interface{}) ([]byte, error) { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v interface{}) error {
	return json.Unmarshal(data, v)
}

func init() { encoding.RegisterCodec(jsonCodec{}) }

// Request says what the server is to do.
type Request struct {
	ID       string `json:"id"`
	Code     uint32 `json:"code"`     // the status it answers with
	Attempts int    `json:"attempts"` // the first at which the server is available; 0: it always is
	Panic    bool   `json:"panic"`    // the handler panics, and an interceptor recovers
	Sleep    int    `json:"sleep"`    // ms before it answers
	Messages int    `json:"messages"` // of a stream, in each direction
	Nested   string `json:"nested"`   // how it calls itself: "context", "background", "goroutine"; or not
}

// Reply says what the server saw.
type Reply struct {
	ID          string `json:"id"`
	Traceparent string `json:"traceparent"`
	Metadata    string `json:"metadata,omitempty"` // a checksum of what came with the call under names that begin with x-
}
