"""OTLP requests from spans that are encoded already.

Every span is encoded once, by the thread that made it, while it is warm in the cache. A request around
encoded spans is then an ordinary protobuf message of a type in which the resource, the scope and the spans
are `bytes`: on the wire an embedded message and its encoding in a `bytes` field are the same (protobuf,
"Encoding": wire type 2, LEN). So no span is copied into a request as a message, which in Python would cost
more than encoding it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_Field = descriptor_pb2.FieldDescriptorProto


@dataclass(frozen=True, slots=True)
class Origin:
    """Where spans come from: a process (the resource) and a library in it (the scope), both encoded.

    Made once for each process and library, and put beside each chunk of its spans.
    """

    resource: bytes
    scope: bytes
    schema_url: str = ""

    @classmethod
    def of(cls, resource: Resource, scope: InstrumentationScope, *, schema_url: str = "") -> Origin:
        """Encode both messages. `schema_url` is that of the conventions the resource and the spans follow."""
        return cls(resource.SerializeToString(), scope.SerializeToString(), schema_url)


Chunk = tuple[Origin, Sequence[bytes]]


def encode_spans(spans: Iterable[Span]) -> list[bytes]:
    """Encode finished spans for a sink."""
    return [span.SerializeToString() for span in spans]


def _request_type() -> Any:
    """Make the message type of a request in which what is encoded already is `bytes`.

    Field numbers are those of opentelemetry/proto/collector/trace/v1/trace_service.proto and
    trace/v1/trace.proto.
    """
    file = descriptor_pb2.FileDescriptorProto(name="gospan/request.proto", package="gospan", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, _Field.Type.ValueType, bool, str]) -> None:
        added = file.message_type.add(name=name)
        for field, number, kind, repeated, type_name in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            added.field.add(name=field, number=number, type=kind, label=label, type_name=type_name or None)

    message(
        "ScopeSpans",
        ("scope", 1, _Field.TYPE_BYTES, False, ""),
        ("spans", 2, _Field.TYPE_BYTES, True, ""),
        ("schema_url", 3, _Field.TYPE_STRING, False, ""),
    )
    message(
        "ResourceSpans",
        ("resource", 1, _Field.TYPE_BYTES, False, ""),
        ("scope_spans", 2, _Field.TYPE_MESSAGE, True, ".gospan.ScopeSpans"),
        ("schema_url", 3, _Field.TYPE_STRING, False, ""),
    )
    message("Request", ("resource_spans", 1, _Field.TYPE_MESSAGE, True, ".gospan.ResourceSpans"))
    # A pool of its own: nothing of this is ever mixed with the real types.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("gospan.Request"))


_Request = _request_type()


def encode_request(chunks: Iterable[Chunk]) -> bytes:
    """Encode an ExportTraceServiceRequest: one ResourceSpans a process, in it one ScopeSpans a library."""
    request = _Request()
    processes: dict[tuple[bytes, str], Any] = {}
    libraries: dict[Origin, Any] = {}
    for origin, spans in chunks:
        library = libraries.get(origin)
        if library is None:
            key = (origin.resource, origin.schema_url)
            process = processes.get(key)
            if process is None:
                process = request.resource_spans.add(resource=origin.resource, schema_url=origin.schema_url)
                processes[key] = process
            library = process.scope_spans.add(scope=origin.scope, schema_url=origin.schema_url)
            libraries[origin] = library
        library.spans.extend(spans)
    encoded: bytes = request.SerializeToString()
    return encoded
