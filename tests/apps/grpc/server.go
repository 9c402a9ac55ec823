package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Line is what the server writes of each call it served.
type Line struct {
	ID          string `json:"id"`
	Method      string `json:"method"`
	Code        string `json:"code"`
	Peer        string `json:"peer"`
	Traceparent string `json:"traceparent"`
}

type server struct {
	mu   sync.Mutex
	log  *json.Encoder
	self *grpc.ClientConn
}

func (s *server) write(ctx context.Context, method, id string, err error) {
	line := Line{ID: id, Method: method, Code: status.Code(err).String(), Traceparent: traceparent(ctx)}
	if from, ok := peer.FromContext(ctx); ok {
		line.Peer = from.Addr.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.Encode(line)
}

func traceparent(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md["traceparent"], " and ")
}

func (s *server) answer(ctx context.Context, request *Request) (*Reply, error) {
	if request.Panic {
		panic("asked to")
	}
	time.Sleep(time.Duration(request.Sleep) * time.Millisecond)
	inner := &Request{ID: request.ID + "/inner"}
	switch request.Nested {
	case "context":
		s.self.Invoke(ctx, "/shapes.Shapes/Unary", inner, new(Reply))
	case "background":
		s.self.Invoke(context.Background(), "/shapes.Shapes/Unary", inner, new(Reply))
	case "goroutine":
		done := make(chan error)
		go func() { done <- s.self.Invoke(ctx, "/shapes.Shapes/Unary", inner, new(Reply)) }()
		<-done
	}
	if request.Code != 0 {
		return nil, status.Error(codes.Code(request.Code), "asked to")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if before, _ := strconv.Atoi(strings.Join(md["grpc-previous-rpc-attempts"], "")); before+1 < request.Attempts {
		return nil, status.Error(codes.Unavailable, "asked to")
	}
	return &Reply{ID: request.ID, Traceparent: traceparent(ctx), Metadata: digest(md)}, nil
}

func (s *server) unary(_ interface{}, ctx context.Context, decode func(interface{}) error, through grpc.UnaryServerInterceptor) (interface{}, error) {
	request := new(Request)
	if err := decode(request); err != nil {
		return nil, err
	}
	handler := func(ctx context.Context, request interface{}) (interface{}, error) {
		return s.answer(ctx, request.(*Request))
	}
	if through == nil {
		return handler(ctx, request)
	}
	return through(ctx, request, &grpc.UnaryServerInfo{Server: s, FullMethod: "/shapes.Shapes/Unary"}, handler)
}

// stream reads until the client has said all, and answers as often as the first message asks.
func (s *server) stream(_ interface{}, stream grpc.ServerStream) error {
	var first *Request
	for {
		request := new(Request)
		err := stream.RecvMsg(request)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if first == nil {
			first = request
		}
	}
	if first == nil {
		return status.Error(codes.InvalidArgument, "no message")
	}
	reply, err := s.answer(stream.Context(), first)
	if err != nil {
		return err
	}
	for i := 0; i < first.Messages; i++ {
		if err := stream.SendMsg(reply); err != nil {
			return err
		}
	}
	return nil
}

// one answers a stream of requests by one reply.
func (s *server) one(_ interface{}, stream grpc.ServerStream) error {
	request := new(Request)
	var last *Request
	for {
		err := stream.RecvMsg(request)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		last, request = request, new(Request)
	}
	if last == nil {
		last = new(Request)
	}
	reply, err := s.answer(stream.Context(), last)
	if err != nil {
		return err
	}
	return stream.SendMsg(reply)
}

func recovered(err *error) {
	if value := recover(); value != nil {
		*err = status.Error(codes.Internal, fmt.Sprint(value))
	}
}

func (s *server) interceptUnary(ctx context.Context, request interface{}, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (reply interface{}, err error) {
	defer func() { s.write(ctx, info.FullMethod, request.(*Request).ID, err) }()
	defer recovered(&err)
	return handler(ctx, request)
}

// watched remembers the id in a stream's first message.
type watched struct {
	grpc.ServerStream
	id string
}

func (w *watched) RecvMsg(m interface{}) error {
	err := w.ServerStream.RecvMsg(m)
	if request, ok := m.(*Request); ok && err == nil && w.id == "" {
		w.id = request.ID
	}
	return err
}

func (s *server) interceptStream(srv interface{}, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	seen := &watched{ServerStream: stream}
	defer func() { s.write(stream.Context(), info.FullMethod, seen.id, err) }()
	defer recovered(&err)
	return handler(srv, seen)
}

func serve(listen, log string, useTLS, overHTTP bool, workers uint) {
	file, err := os.Create(log)
	check(err)
	s := &server{log: json.NewEncoder(file)}
	options := append(workerOptions(workers), grpc.UnaryInterceptor(s.interceptUnary), grpc.StreamInterceptor(s.interceptStream))
	if useTLS && !overHTTP {
		options = append(options, grpc.Creds(credentials.NewTLS(serverTLS())))
	}
	g := grpc.NewServer(options...)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shapes.Shapes",
		HandlerType: (*interface{})(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: s.unary}},
		Streams: []grpc.StreamDesc{
			{StreamName: "ServerStream", Handler: s.stream, ServerStreams: true},
			{StreamName: "ClientStream", Handler: s.one, ClientStreams: true},
			{StreamName: "Both", Handler: s.stream, ServerStreams: true, ClientStreams: true},
		},
	}, s)
	listener, err := net.Listen("tcp", listen)
	check(err)
	s.self, err = grpc.Dial(listener.Addr().String(), dialOptions(useTLS, false)...)
	check(err)
	fmt.Printf("listening %s\n", listener.Addr())
	if overHTTP {
		web := &http.Server{Handler: g, TLSConfig: serverTLS()}
		check(web.ServeTLS(listener, "", ""))
	}
	check(g.Serve(listener))
}
