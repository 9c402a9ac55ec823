"""Trace context in outgoing gRPC calls: it makes no spans, it ties those of several services together."""

from __future__ import annotations

from agent.libraries.grpc_server import GRPC, TRANSPORT
from agent.libraries.library import Feature, Library, Probe

_NEW_STREAM = f"{TRANSPORT}.(*http2Client).NewStream"
_WRITE_HEADER = f"{TRANSPORT}.(*loopyWriter).writeHeader"

GRPC_PROPAGATION = Library(
    name="grpc propagation",
    object="grpc_propagation",
    module=GRPC,
    records={},
    not_on={"arm64": "on arm64 a header's length is in a register, which can't be written"},
    only_with=(_NEW_STREAM,),
    probes=(
        Probe(
            program="grpc_header_queued",
            symbols=(_NEW_STREAM,),
            at="call",
            calls=(f"{TRANSPORT}.(*controlBuffer).executeAndPut",),
            gives="the moment at which a call's header is queued",
            required=True,
        ),
        Probe(
            program="grpc_header_encoded",
            symbols=(_WRITE_HEADER,),
            gives="which header is written",
            required=True,
        ),
        Probe(
            program="grpc_header_written",
            symbols=(_WRITE_HEADER,),
            at="call",
            calls=("golang.org/x/net/http2.(*Framer).WriteHeaders",),
            gives="the moment at which a header is written",
            required=True,
        ),
    ),
    features=(
        Feature(
            what="which call a header belongs to, and where it is written",
            fields=tuple(
                (
                    f"{TRANSPORT}.{item}.hf",
                    f"{TRANSPORT}.http2Client.framer",
                    f"{TRANSPORT}.http2Client.maxSendHeaderListSize",
                    f"{TRANSPORT}.framer.fr",
                    f"{TRANSPORT}.loopyWriter.framer",
                    f"{TRANSPORT}.loopyWriter.hBuf",
                    "bytes.Buffer.buf",
                )
                for item in ("clientHeaders", "headerFrame")
            ),
            required=True,
        ),
    ),
)
