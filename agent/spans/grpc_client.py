"""CLIENT spans from the records of google.golang.org/grpc clients, by OpenTelemetry's RPC conventions."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.kernel.formats import Format
from agent.spans.http import text_of
from agent.spans.records import TEXT_CUT, Encoder
from agent.spans.rpc import CODE_UNKNOWN, address_of, code_name, describe_call, parse_target
from agent.spans.template import HEADER, encode_header, remember, set_attribute

_LENGTH = TEXT_CUT - 1
_UNKNOWN = 2

_STATUS_ERRORS = frozenset({b"*status.Error", b"*status.statusError"})
"""Types of errors that have a status; the latter before grpc 1.28."""


def grpc_client_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct grpc_client_record` (bpf/grpc_client.bpf.c)."""
    return _GrpcClientEncoder(record).encode


class _GrpcClientEncoder:
    """Keeps what repeats from call to call, encoded."""

    def __init__(self, record: Format) -> None:
        position = {field.name: index for index, field in enumerate(record.fields)}
        self._unpack = record.packer.unpack_from
        self._header = itemgetter(*(position[f"header.{name}"] for name in HEADER))
        self._what = itemgetter(
            *(position[name] for name in ("code", "failed", "peer.length", "peer.ip", "peer.port"))
        )
        errors = range(sum(name.startswith("codes[") for name in position))
        self._errors = itemgetter(
            *(position[f"errors[{index}].{part}"] for index in errors for part in ("offset", "length"))
        )
        self._codes = itemgetter(*(position[f"codes[{index}]"] for index in errors))
        self._texts = itemgetter(
            *(position[f"{name}.{part}"] for name in ("target", "method") for part in ("offset", "length"))
        )
        self._templates: dict[object, bytes] = {}

    def encode(self, record: bytes, clock: int) -> bytes:
        """Make the encoded span of a record; `clock` ns are added to its times to make them Unix time."""
        fields = self._unpack(record)
        target_at, target_length, method_at, method_length = self._texts(fields)
        target = record[target_at : target_at + (target_length & _LENGTH)]
        method = record[method_at : method_at + (method_length & _LENGTH)]
        what = self._what(fields)
        code = what[0]
        if what[1]:
            code = self._code(record, fields)
        key = (target, method, what, code)
        template = self._templates.get(key)
        if template is None:
            template = self._template(text_of(target), text_of(method), code, *what[1:])
            remember(self._templates, key, template)
        return encode_header(clock, *self._header(fields)) + template

    def _code(self, record: bytes, fields: tuple[Any, ...]) -> int:
        """The code of an error: grpc's own, or of the one that it wraps; another one is UNKNOWN (status.Code)."""
        places = self._errors(fields)
        for index, code in enumerate(self._codes(fields)):
            at, length = places[2 * index : 2 * index + 2]
            if record[at : at + (length & _LENGTH)] in _STATUS_ERRORS:
                return int(code)
        return _UNKNOWN

    def _template(
        self, target: str, method: str, code: int, failed: int, peer_length: int, peer: bytes, peer_port: int
    ) -> bytes:
        """Encode what the spans of many calls have in common."""
        span = Span(kind=Span.SPAN_KIND_CLIENT)
        if not failed and code == CODE_UNKNOWN:
            code = 0
        describe_call(span, method.removeprefix("/"), code)
        server = parse_target(target)
        if server.host:
            set_attribute(span, "server.address", server.host)
            if server.port is not None:
                set_attribute(span, "server.port", server.port)
        if peer_length:
            set_attribute(span, "network.peer.address", address_of(peer[:peer_length]))
            set_attribute(span, "network.peer.port", peer_port)
        if failed or code:
            set_attribute(span, "error.type", code_name(code) if code != CODE_UNKNOWN else "_OTHER")
            span.status.code = Status.STATUS_CODE_ERROR
        return span.SerializeToString()
