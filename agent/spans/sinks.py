"""Where spans can go: a collector, the terminal, memory, nowhere."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TextIO
from typing import Protocol as Interface

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.config import Destination, Export, Protocol
from agent.config import Sink as SinkName
from agent.log import StateLog
from agent.spans.delivery import Accepted, Backoff, Failed, Outcome, Transport
from agent.spans.export import Exporter, ExportStatus
from agent.spans.otlp import Chunk, Origin
from agent.spans.signals import TRACES, Signal

if TYPE_CHECKING:
    from agent.spans.http_transport import HttpTransport
    from agent.spans.transport import GrpcTransport


class Sink(Interface):
    """What the drain loop hands finished spans to."""

    def put(self, origin: Origin, spans: Sequence[bytes]) -> None:
        """Take the encoded spans of one process and library. Never blocks, raises nothing."""

    def reconfigure(self, settings: Export) -> None:
        """Go on by other settings; the kind of sink stays."""

    def flush(self, timeout: float) -> bool:
        """Send on what was put until now; say whether that ended within `timeout` seconds."""

    def shutdown(self, timeout: float) -> bool:
        """Send on what is left, and end; say whether nothing was left."""

    def status(self) -> list[ExportStatus]:
        """Give the counts of each destination."""


def open_sink(settings: Export, *, log: StateLog | None = None) -> Sink:
    """Open the sink the configuration names."""
    match settings.sink:
        case SinkName.OTLP:
            return Exporters(settings, open_otlp, log=log)
        case SinkName.CONSOLE:
            return Exporters(settings, lambda _: ConsoleTransport(), log=log, destination="standard output")
        case SinkName.NONE:
            return NullSink()


def open_otlp(settings: Destination, signal: Signal = TRACES) -> GrpcTransport | HttpTransport:
    """Open the transport to a collector. Raises OSError if a certificate can't be used."""
    # Late, and in the worker's thread: what they bring takes 0.3 s and up to 15 MB, and only one may be needed.
    if settings.protocol is Protocol.HTTP:
        from agent.spans.http_transport import HttpTransport

        return HttpTransport(settings, signal)
    # What gRPC's C core has to say goes to stderr past our log, and we say it ourselves.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from agent.spans.transport import GrpcTransport

    return GrpcTransport(settings, signal)


_LAST_SECONDS = 5.0
"""How long a destination that was taken out of the configuration is still sent to."""


class Exporters:
    """An exporter for each destination. One that is down or slow holds up no other: all have queues of their own."""

    def __init__(
        self,
        settings: Export,
        open_transport: Callable[[Export], Transport],
        *,
        log: StateLog | None = None,
        backoff: Backoff | None = None,
        destination: str | None = None,
    ) -> None:
        self._start = functools.partial(
            Exporter, open_transport=open_transport, log=log, backoff=backoff, destination=destination
        )
        self._only_one = destination is not None
        self._settings = self._each(settings)
        self._all = [self._start(one) for one in self._settings]

    def _each(self, settings: Export) -> tuple[Export, ...]:
        return settings.each()[: 1 if self._only_one else None]

    def reconfigure(self, settings: Export) -> None:
        """Go on by other settings. What waits for the first destination goes by the new ones; others have an address.

        Destinations that are gone get what waits for them, for a few seconds, while the others go on.
        """
        known = {one.endpoint: at for at, one in enumerate(self._settings) if at}
        wanted = self._each(settings)
        exporters: list[Exporter] = []
        for number, one in enumerate(wanted):
            at = known.pop(one.endpoint, None) if number else 0
            if at is None:
                exporters.append(self._start(one))
            else:
                self._all[at].reconfigure(one)
                exporters.append(self._all[at])
        for at in known.values():
            threading.Thread(target=self._all[at].shutdown, args=(_LAST_SECONDS,), daemon=True).start()
        self._all, self._settings = exporters, wanted

    @property
    def each(self) -> tuple[Exporter, ...]:
        """The exporters, in the order of the destinations."""
        return tuple(self._all)

    def put(self, origin: Origin, spans: Sequence[bytes]) -> None:
        """Hand the spans to every exporter. They share the encoded spans, each holds on to them while it needs to."""
        for exporter in self._all:
            exporter.put(origin, spans)

    def flush(self, timeout: float) -> bool:
        """Send what was put until now, to all; say whether that ended within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        done = [exporter.flush(max(0.0, deadline - time.monotonic())) for exporter in self._all]
        return all(done)

    def shutdown(self, timeout: float) -> bool:
        """Send what is left, to all at a time, for at most `timeout` seconds; say whether nothing was dropped."""
        results: list[bool] = []
        threads = [
            threading.Thread(target=lambda one=exporter: results.append(one.shutdown(timeout)), daemon=True)
            for exporter in self._all[1:]
        ]
        for thread in threads:
            thread.start()
        first = self._all[0].shutdown(timeout)
        for thread in threads:
            thread.join()  # each ends by itself, a second after the time at the latest
        return first and len(results) == len(threads) and all(results)

    def status(self) -> list[ExportStatus]:
        """Give the counts of each destination."""
        return [exporter.status() for exporter in self._all]


class NullSink:
    """Drops every span on purpose, and counts it as sent: that is where it was to go."""

    def __init__(self) -> None:
        self._sent = 0

    def put(self, origin: Origin, spans: Sequence[bytes]) -> None:  # noqa: ARG002
        """Count the spans."""
        self._sent += len(spans)

    def reconfigure(self, settings: Export) -> None:
        """Do nothing."""

    def flush(self, timeout: float) -> bool:  # noqa: ARG002
        """Do nothing."""
        return True

    def shutdown(self, timeout: float) -> bool:  # noqa: ARG002
        """Do nothing."""
        return True

    def status(self) -> list[ExportStatus]:
        """Give the count."""
        return [
            ExportStatus(destination="nowhere", sent=self._sent, held=0, dropped={}, requests=0, retries=0)
        ]


# --- the last spans, in memory ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecentSpan:
    """A span that was kept, with its number in the order of arrival, and where it comes from."""

    number: int
    resource: Resource
    scope: InstrumentationScope
    span: Span


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """Spans of one process and library that were kept, numbered from `first` on."""

    first: int
    origin: Origin
    spans: Sequence[bytes]


class RecentSpans:
    """Keeps the last `limit` spans, beside whatever else happens to them, for `gospan spans`.

    Putting is an append a chunk; chunks are decoded when somebody looks. May hold a chunk more than that.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks: deque[tuple[int, Origin, Sequence[bytes]]] = deque()
        self._next = 0
        self._lock = threading.Lock()

    def resize(self, limit: int) -> None:
        """Keep another number of spans from now on."""
        with self._lock:
            self._limit = limit
            if not limit:
                self._chunks.clear()

    def put(self, origin: Origin, spans: Sequence[bytes]) -> None:
        """Keep the encoded spans of one process and library."""
        with self._lock:
            # Those of a chunk that is larger than what is kept have numbers, too.
            skipped = max(0, len(spans) - self._limit)
            self._next += skipped
            if not (spans := spans[skipped:]):
                return
            self._chunks.append((self._next, origin, spans))
            self._next += len(spans)
            while self._next - self._chunks[0][0] - len(self._chunks[0][2]) >= self._limit:
                self._chunks.popleft()

    @property
    def kept(self) -> int:
        """How many spans there are."""
        return min(self._next, self._limit)

    @property
    def next_number(self) -> int:
        """The number that the next span will get."""
        return self._next

    def encoded_since(self, number: int) -> tuple[int, list[EncodedChunk]]:
        """Give how many spans from this number on are gone already, and what is kept of them, encoded."""
        with self._lock:
            first = min(max(number, self._next - self._limit), self._next)
            chunks = [chunk for chunk in self._chunks if chunk[0] + len(chunk[2]) > first]
        return max(0, first - number), [
            EncodedChunk(max(start, first), origin, spans[max(0, first - start) :])
            for start, origin, spans in chunks
        ]

    def since(self, number: int = 0) -> list[RecentSpan]:
        """Give what is kept of the spans from this number on; the last one's number + 1 continues."""
        return [
            RecentSpan(at, *_decode_origin(chunk.origin), Span.FromString(data))
            for chunk in self.encoded_since(number)[1]
            for at, data in enumerate(chunk.spans, start=chunk.first)
        ]


@lru_cache(maxsize=1024)
def _decode_origin(origin: Origin) -> tuple[Resource, InstrumentationScope]:
    return Resource.FromString(origin.resource), InstrumentationScope.FromString(origin.scope)


# --- the terminal -------------------------------------------------------------------------------------------


class ConsoleTransport:
    """Writes a line a span, from the exporter's thread: a stuck terminal doesn't hold up the drain."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._colour = self._stream.isatty()

    def send(self, chunks: Iterable[Chunk], timeout: float) -> Outcome:  # noqa: ARG002
        """Write the batch's lines."""
        lines: list[str] = []
        for origin, spans in chunks:
            resource, _ = _decode_origin(origin)
            lines += [
                format_span(resource, Span.FromString(data), colour=self._colour) + "\n" for data in spans
            ]
        try:
            self._stream.writelines(lines)
            self._stream.flush()
        except OSError as error:
            return Failed(code="OUTPUT", message=error.strerror or str(error), retryable=False)
        return Accepted()

    def reconnect(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: the stream isn't ours."""


_GREEN, _RED, _BOLD, _DIM, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"


def format_span(resource: Resource, span: Span, *, colour: bool = False) -> str:
    """Write a span in one line: when, service, kind, name, how long, attributes, ids."""

    def paint(code: str, text: str) -> str:
        return f"{code}{text}{_PLAIN}" if colour else text

    begin = time.localtime(span.start_time_unix_nano // 1_000_000_000)
    clock = f"{time.strftime('%H:%M:%S', begin)}.{span.start_time_unix_nano // 1_000_000 % 1000:03d}"
    failed = span.status.code == Status.STATUS_CODE_ERROR
    parent = f" parent={span.parent_span_id.hex()}" if span.parent_span_id else ""
    words = [
        paint(_DIM, clock),
        _service_name(resource),
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        paint(_RED if failed else _BOLD, _clean(span.name)),
        paint(_GREEN, duration_text(span.end_time_unix_nano - span.start_time_unix_nano)),
        *(["error"] if failed else []),
        *(f"{_clean(item.key)}={_clean(_text(item.value))}" for item in span.attributes),
        paint(_DIM, f"trace={span.trace_id.hex()} span={span.span_id.hex()}{parent}"),
    ]
    return " ".join(words)


def _service_name(resource: Resource) -> str:
    names = (item.value.string_value for item in resource.attributes if item.key == "service.name")
    return _clean(next(names, "?"))


def duration_text(nanoseconds: int) -> str:
    """Write a duration for people."""
    if nanoseconds >= 1_000_000_000:
        return f"{nanoseconds / 1e9:.2f}s"
    return f"{nanoseconds / 1e6:.2f}ms" if nanoseconds >= 1_000_000 else f"{nanoseconds / 1e3:.0f}us"


def _text(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return "[" + ",".join(_text(item) for item in value.array_value.values) + "]"
    return str(getattr(value, kind)) if kind else ""


def _clean(text: str) -> str:
    """Make text from a traced program safe for a terminal: no control characters, no escape sequences."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
