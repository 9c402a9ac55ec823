"""A span as people and scripts are shown it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.spans.pipeline import SCOPE_PREFIX
from agent.spans.sinks import RecentSpan
from agent.status.protocol import Json

KINDS = ("internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")


@dataclass(frozen=True, slots=True)
class ShownSpan:
    """What a span says. Times are in ns of Unix time, ids in hexadecimal; `parent_id` is "" without a parent."""

    number: int
    service: str
    pid: int
    library: str
    name: str
    kind: str
    start: int
    end: int
    status: str
    message: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, object]

    @classmethod
    def of(cls, recent: RecentSpan) -> ShownSpan:
        """Take it from what the agent kept."""
        span = recent.span
        resource = {one.key: _value(one.value) for one in recent.resource.attributes}
        pid = resource.get("process.pid")
        return cls(
            number=recent.number,
            service=str(resource.get("service.name", "")),
            pid=pid if isinstance(pid, int) else 0,
            library=recent.scope.name.removeprefix(f"{SCOPE_PREFIX}/"),
            name=span.name,
            kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            status=Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
            message=span.status.message,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            attributes={one.key: _value(one.value) for one in span.attributes},
        )

    @property
    def duration(self) -> int:
        """How long it took, in ns."""
        return max(0, self.end - self.start)

    @property
    def failed(self) -> bool:
        """Whether its status is an error."""
        return self.status == "error"

    def as_json(self) -> Json:
        """Give it for scripts; docs/status.md describes it."""
        return {
            "number": self.number,
            "service": self.service,
            "pid": self.pid,
            "library": self.library,
            "name": self.name,
            "kind": self.kind,
            "start_ns": self.start,
            "end_ns": self.end,
            "duration_ns": self.duration,
            "status": self.status,
            "message": self.message,
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_id": self.parent_id,
            "attributes": self.attributes,
        }


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "bytes_value":
        return value.bytes_value.hex()
    found: object = getattr(value, kind) if kind else None
    return found if isinstance(found, str | bool | int | float) else str(found or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which spans are shown: all that match everything that is given. Texts are globs, a duration is in ns."""

    service: str | None = None
    name: str | None = None
    kind: str | None = None
    status: str | None = None
    min_duration: int = 0
    trace: str = ""
    attributes: tuple[tuple[str, str], ...] = field(default=())

    def matches(self, span: ShownSpan) -> bool:
        """Say whether a span is shown."""
        return (
            (self.service is None or fnmatchcase(span.service, self.service))
            and (self.name is None or fnmatchcase(span.name, self.name))
            and self.kind in (None, span.kind)
            and self.status in (None, span.status)
            and span.duration >= self.min_duration
            and span.trace_id.startswith(self.trace)
            and all(
                key in span.attributes and fnmatchcase(str(span.attributes[key]), glob)
                for key, glob in self.attributes
            )
        )
