package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// Call is one that the client is asked for, a JSON object a line on standard input.
type Call struct {
	Request
	Method   string `json:"method"`   // Unary, ServerStream, ClientStream, Both, or any other
	Deadline int    `json:"deadline"` // ms; 0: none
	Cancel   int    `json:"cancel"`   // ms after which it is cancelled; 0: never
	Send     string `json:"send"`     // a traceparent of the program's own
	Wrap     string `json:"wrap"`     // what an interceptor makes of the error: "wrapped", "plain"; or nothing
}

// Outcome is what the client writes of it.
type Outcome struct {
	ID          string `json:"id"`
	Method      string `json:"method"`
	Code        string `json:"code"`
	Traceparent string `json:"traceparent"` // as the server got it
	StartNs     int64  `json:"start_ns"`
	EndNs       int64  `json:"end_ns"`
}

func dialOptions(useTLS, retry bool) []grpc.DialOption {
	options := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("json")),
		grpc.WithUnaryInterceptor(intercept),
		grpc.WithStreamInterceptor(interceptStream),
	}
	if retry {
		options = append(options, retryOptions()...)
	}
	if useTLS {
		return append(options, grpc.WithTransportCredentials(credentials.NewTLS(clientTLS())))
	}
	return append(options, grpc.WithInsecure())
}

type wrapKey struct{}

// intercept makes a call of its own within the call, and changes the error where it is asked to.
func intercept(ctx context.Context, method string, request, reply interface{}, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	wrap, _ := ctx.Value(wrapKey{}).(string)
	if wrap == "nested" {
		connection.Invoke(context.WithValue(ctx, wrapKey{}, ""), method, &Request{ID: "nested"}, new(Reply))
	}
	err := invoke(ctx, method, request, reply, connection, options...)
	switch {
	case err != nil && wrap == "wrapped":
		return fmt.Errorf("twice: %w", fmt.Errorf("once: %w", err))
	case err != nil && wrap == "plain":
		return errors.New("not a status")
	}
	return err
}

// wrapped is what interceptors give back: a stream around the stream.
type wrapped struct {
	grpc.ClientStream
	messages int
}

func interceptStream(ctx context.Context, description *grpc.StreamDesc, connection *grpc.ClientConn, method string, next grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := next(ctx, description, connection, method, options...)
	if err != nil {
		return nil, err
	}
	return &wrapped{ClientStream: stream}, nil
}

func call(connection *grpc.ClientConn, one Call) Outcome {
	ctx := context.Background()
	if one.Send != "" {
		ctx = outgoing(ctx, one.Send)
	}
	if one.Deadline > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, time.Duration(one.Deadline)*time.Millisecond)
		defer cancel()
	}
	if one.Cancel > 0 {
		var cancel func()
		ctx, cancel = context.WithCancel(ctx)
		time.AfterFunc(time.Duration(one.Cancel)*time.Millisecond, cancel)
	}
	if one.Wrap != "" {
		ctx = context.WithValue(ctx, wrapKey{}, one.Wrap)
	}
	outcome := Outcome{ID: one.ID, Method: one.Method, StartNs: time.Now().UnixNano()}
	reply := new(Reply)
	method := "/shapes.Shapes/" + one.Method
	var err error
	switch one.Method {
	case "ServerStream", "ClientStream", "Both":
		err = stream(ctx, connection, method, one, reply)
	default:
		err = connection.Invoke(ctx, method, &one.Request, reply)
	}
	outcome.EndNs = time.Now().UnixNano()
	outcome.Code = status.Code(err).String()
	outcome.Traceparent = reply.Traceparent
	return outcome
}

func stream(ctx context.Context, connection *grpc.ClientConn, method string, one Call, reply *Reply) error {
	description := &grpc.StreamDesc{ServerStreams: one.Method != "ClientStream", ClientStreams: one.Method != "ServerStream"}
	stream, err := connection.NewStream(ctx, description, method)
	if err != nil {
		return err
	}
	sent := one.Messages
	if one.Method == "ServerStream" || sent < 1 {
		sent = 1
	}
	for i := 0; i < sent; i++ {
		if err := stream.SendMsg(&one.Request); err != nil {
			break // the reason comes with RecvMsg
		}
	}
	stream.CloseSend()
	if one.Method == "ClientStream" {
		return stream.RecvMsg(reply)
	}
	for {
		if err := stream.RecvMsg(reply); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

func dial(target string, useTLS, retry bool, connections int) []*grpc.ClientConn {
	var pool []*grpc.ClientConn
	for i := 0; i < connections; i++ {
		connection, err := grpc.Dial(target, dialOptions(useTLS, retry)...)
		check(err)
		pool = append(pool, connection)
	}
	return pool
}

func send(pool []*grpc.ClientConn, concurrency int) {
	calls := make(chan Call)
	var workers sync.WaitGroup
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	for i := 0; i < concurrency; i++ {
		workers.Add(1)
		go func(i int) {
			defer workers.Done()
			for one := range calls {
				outcome := call(pool[i%len(pool)], one)
				mu.Lock()
				out.Encode(outcome)
				mu.Unlock()
			}
		}(i)
	}
	input := json.NewDecoder(os.Stdin)
	for {
		var one Call
		if err := input.Decode(&one); err != nil {
			break
		}
		calls <- one
	}
	close(calls)
	workers.Wait()
	fmt.Fprintln(os.Stderr, "done")
	// Streams' ends are noticed by goroutines of their own.
	time.Sleep(200 * time.Millisecond)
}
