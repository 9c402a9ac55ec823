"""google.golang.org/grpc servers: one SERVER span a call, unary or streaming."""

from __future__ import annotations

from agent.libraries.library import Feature, Library, Probe
from agent.libraries.maps import MAP_FIELDS
from agent.spans.grpc_server import grpc_server_encoder
from agent.spans.resource import SCHEMA_URL

GRPC = "google.golang.org/grpc"
TRANSPORT = f"{GRPC}/internal/transport"

STATUS = (
    (f"{GRPC}/internal/status.Status.s", "google.golang.org/genproto/googleapis/rpc/status.Status.Code"),
    (f"{GRPC}/status.Status.s", "google.golang.org/genproto/googleapis/rpc/status.Status.Code"),
)
"""Where a status has its code."""

GRPC_SERVER = Library(
    name="grpc server",
    object="grpc_server",
    module=GRPC,
    schema_url=SCHEMA_URL,
    records={"grpc_server_record": grpc_server_encoder},
    probes=(
        Probe(
            program="grpc_server_start",
            symbols=(f"{GRPC}.(*Server).handleStream",),
            gives="the beginning of calls",
            required=True,
        ),
        Probe(
            program="grpc_server_status",
            symbols=(
                f"{TRANSPORT}.(*http2Server).WriteStatus",
                f"{TRANSPORT}.(*http2Server).writeStatus",
                f"{TRANSPORT}.(*serverHandlerTransport).WriteStatus",
                f"{TRANSPORT}.(*serverHandlerTransport).writeStatus",
            ),
            gives="the status of calls",
        ),
        Probe(
            program="grpc_server_return",
            symbols=(f"{GRPC}.(*Server).handleStream",),
            at="return",
            gives="the end of calls whose client has gone",
            required=True,
        ),
    ),
    features=(
        Feature(
            what="rpc.method",
            fields=(
                (f"{TRANSPORT}.ServerStream.Stream.method",),
                (f"{TRANSPORT}.ServerStream.Stream", f"{TRANSPORT}.Stream.method"),
                (f"{TRANSPORT}.Stream.method",),
            ),
            required=True,
        ),
        Feature(what="rpc.response.status_code", fields=STATUS, of="grpc_server_status"),
        Feature(
            what="the parent from traceparent",
            fields=tuple(
                (
                    context,
                    f"{GRPC}/metadata.MD",
                    f"{GRPC}/metadata.mdIncomingKey",
                    *geometry,
                )
                for context in (f"{TRANSPORT}.ServerStream.Stream.ctx", f"{TRANSPORT}.Stream.ctx")
                for geometry in MAP_FIELDS
            ),
        ),
        Feature(
            what="network.peer.address, network.peer.port, server.address, server.port",
            fields=(
                (f"{TRANSPORT}.http2Server.peer.Addr", "net.TCPAddr.IP", "net.TCPAddr.Port"),
                (f"{TRANSPORT}.http2Server.remoteAddr", "net.TCPAddr.IP", "net.TCPAddr.Port"),
            ),
        ),
    ),
)
