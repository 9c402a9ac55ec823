"""SERVER spans from the records of google.golang.org/grpc servers, by OpenTelemetry's RPC conventions."""

from __future__ import annotations

from operator import itemgetter

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.kernel.formats import Format
from agent.spans.http import text_of
from agent.spans.records import TEXT_CUT, Encoder
from agent.spans.rpc import (
    CODE_UNKNOWN,
    METHOD_OTHER,
    SERVER_ERRORS,
    address_of,
    code_name,
    describe_call,
)
from agent.spans.template import HEADER, TraceStates, encode_header, remember, set_attribute

_LENGTH = TEXT_CUT - 1


def grpc_server_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct grpc_server_record` (bpf/grpc_server.bpf.c)."""
    return _GrpcServerEncoder(record).encode


class _GrpcServerEncoder:
    """Keeps what repeats from call to call of a connection, encoded."""

    def __init__(self, record: Format) -> None:
        position = {field.name: index for index, field in enumerate(record.fields)}
        self._unpack = record.packer.unpack_from
        self._header = itemgetter(*(position[f"header.{name}"] for name in HEADER))
        self._what = itemgetter(
            *(
                position[name]
                for name in (
                    "code",
                    "method_unknown",
                    "peer.length",
                    "peer.ip",
                    "peer.port",
                    "local.length",
                    "local.ip",
                    "local.port",
                )
            )
        )
        self._texts = itemgetter(
            *(
                position[f"{name}.{part}"]
                for name in ("method", "tracestate")
                for part in ("offset", "length")
            )
        )
        self._templates: dict[object, bytes] = {}
        self._trace_states = TraceStates()

    def encode(self, record: bytes, clock: int) -> bytes:
        """Make the encoded span of a record; `clock` ns are added to its times to make them Unix time."""
        fields = self._unpack(record)
        method_at, method_length, state_at, state_length = self._texts(fields)
        method = record[method_at : method_at + (method_length & _LENGTH)]
        what = self._what(fields)
        key = (method, what)
        template = self._templates.get(key)
        if template is None:
            template = self._template(text_of(method), *what)
            remember(self._templates, key, template)
        state = self._trace_states.encode(record, state_at, state_length)
        return encode_header(clock, *self._header(fields)) + template + state

    def _template(
        self,
        method: str,
        code: int,
        unknown: int,
        peer_length: int,
        peer: bytes,
        peer_port: int,
        local_length: int,
        local: bytes,
        local_port: int,
    ) -> bytes:
        """Encode what the spans of many calls have in common."""
        span = Span(kind=Span.SPAN_KIND_SERVER)
        original = method.removeprefix("/")
        describe_call(span, METHOD_OTHER if unknown else original, code)
        if unknown:
            set_attribute(span, "rpc.method_original", original)
        if local_length:
            set_attribute(span, "server.address", address_of(local[:local_length]))
            set_attribute(span, "server.port", local_port)
        if peer_length:
            address = address_of(peer[:peer_length])
            set_attribute(span, "client.address", address)
            set_attribute(span, "network.peer.address", address)
            set_attribute(span, "network.peer.port", peer_port)
        if code != CODE_UNKNOWN and code_name(code) in SERVER_ERRORS:
            set_attribute(span, "error.type", code_name(code))
            span.status.code = Status.STATUS_CODE_ERROR
        return span.SerializeToString()
