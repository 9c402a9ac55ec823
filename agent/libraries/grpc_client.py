"""google.golang.org/grpc clients: one CLIENT span a call, unary or streaming."""

from __future__ import annotations

from agent.libraries.grpc_server import GRPC, STATUS, TRANSPORT
from agent.libraries.library import Feature, Library, Probe
from agent.spans.grpc_client import grpc_client_encoder
from agent.spans.resource import SCHEMA_URL

_STREAM_GOROUTINES = tuple(
    f"{GRPC}.{function}.func{number}"
    for function in ("newClientStream", "newClientStreamWithParams")
    for number in range(1, 10)
)
"""The function that waits for a stream's context is one of these; which, depends on how many others are before it."""

GRPC_CLIENT = Library(
    name="grpc client",
    object="grpc_client",
    module=GRPC,
    schema_url=SCHEMA_URL,
    records={"grpc_client_record": grpc_client_encoder},
    probes=(
        Probe(
            program="grpc_client_start",
            symbols=(f"{GRPC}.(*ClientConn).Invoke",),
            gives="the beginning of unary calls",
            required=True,
        ),
        Probe(
            program="grpc_client_end",
            symbols=(f"{GRPC}.(*ClientConn).Invoke",),
            at="return",
            gives="the end of unary calls",
            required=True,
        ),
        Probe(
            program="grpc_client_attempt",
            symbols=(f"{TRANSPORT}.(*http2Client).NewStream",),
            gives="network.peer.address, network.peer.port",
        ),
        Probe(
            program="grpc_stream_start",
            symbols=(f"{GRPC}.(*ClientConn).NewStream",),
            gives="the beginning of streaming calls",
            absent="the linker found no use for it",
        ),
        Probe(
            program="grpc_stream_started",
            symbols=(f"{GRPC}.(*ClientConn).NewStream",),
            at="return",
            gives="streaming calls that could not begin",
            absent="the linker found no use for it",
        ),
        Probe(
            program="grpc_stream_end",
            symbols=_STREAM_GOROUTINES,
            at="call",
            calls=(f"{GRPC}.(*clientStream).finish",),
            gives="the end of streaming calls",
        ),
    ),
    features=(
        Feature(what="which calls return", fields=(("runtime.g.stack.hi",),), required=True),
        Feature(
            what="the end of streaming calls",
            fields=((f"{GRPC}.clientStream.callHdr", f"{TRANSPORT}.CallHdr.Method"),),
            of="grpc_stream_end",
        ),
        Feature(what="server.address, server.port", fields=((f"{GRPC}.ClientConn.target",),)),
        Feature(
            what="rpc.response.status_code",
            fields=tuple(
                (*status, *error)
                for status in STATUS
                for error in ((f"{GRPC}/internal/status.Error.s",), (f"{GRPC}/internal/status.Error.e",), ())
            ),
        ),
        Feature(
            what="rpc.response.status_code of streaming calls",
            fields=tuple(
                (
                    f"{GRPC}.clientStream.finished",
                    f"{GRPC}.clientStream.attempt",
                    f"{GRPC}.csAttempt.{stream}",
                    f"{TRANSPORT}.{type_}.status",
                )
                for stream in ("transportStream", "s")
                for type_ in ("ClientStream", "Stream")
            ),
            of="grpc_stream_end",
        ),
        Feature(
            what="network.peer.address, network.peer.port",
            fields=((f"{TRANSPORT}.http2Client.remoteAddr", "net.TCPAddr.IP", "net.TCPAddr.Port"),),
            of="grpc_client_attempt",
        ),
    ),
)
