// A program that is only read, never run: it makes the types of gRPC reachable whose layouts the agent may need, so that
// the linker keeps their descriptors. Those of its internal packages come with the functions that use them.
package main

import (
	"context"
	"net"
	"net/http"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

var kept = []any{
	&grpc.ClientConn{}, &grpc.Server{}, &grpc.ServiceDesc{}, &grpc.StreamDesc{}, &grpc.UnaryServerInfo{},
	&grpc.StreamServerInfo{}, &metadata.MD{}, &peer.Peer{}, &status.Status{}, codes.OK,
}

func handle(_ any, stream grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	stream.SetTrailer(md)
	from, _ := peer.FromContext(stream.Context())
	if err := stream.RecvMsg(from); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return stream.SendMsg(from)
}

func main() {
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(nil)))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: os.Args[0],
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: os.Args[0], Handler: handle}},
	}, server)
	listener, _ := net.Listen("tcp", os.Args[0])
	go server.Serve(listener)
	http.Handle("/", server)
	go http.ListenAndServe(os.Args[0], nil)

	conn, err := grpc.Dial(os.Args[0])
	if err != nil {
		return
	}
	ctx := metadata.NewOutgoingContext(context.Background(), metadata.Pairs(os.Args...))
	if err := conn.Invoke(ctx, os.Args[0], kept, kept); err != nil {
		kept[0], _ = status.FromError(err)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{}, os.Args[0])
	if err == nil {
		stream.SendMsg(kept)
		stream.RecvMsg(kept)
		stream.CloseSend()
	}
	server.GracefulStop()
}
