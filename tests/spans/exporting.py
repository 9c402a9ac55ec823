"""What tests of the exporters have in common: spans to send, settings that are fast, waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.config import Export
from agent.log import StateLog
from agent.spans.delivery import Backoff, Transport
from agent.spans.export import Exporter, ExportStatus
from agent.spans.otlp import Origin, encode_spans
from tests.spans.collector import Collector

FAST = Backoff(first=0.02, limit=0.1)


SETTINGS = Export(batch_size=100, queue_size=1000, schedule_delay=0.02, timeout=2.0)


class Recorder:
    """A logger that keeps what was written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **_fields: object) -> None:
        self.lines.append(event)

    debug = warning = error = info


def origin(service: str = "shop", scope: str = "net/http") -> Origin:
    name = KeyValue(key="service.name", value=AnyValue(string_value=service))
    return Origin.of(
        Resource(attributes=[name]), InstrumentationScope(name=scope, version="1.27"), schema_url="urn:s"
    )


def spans(numbers: range) -> list[bytes]:
    return encode_spans(
        Span(trace_id=bytes(16), name="GET /", start_time_unix_nano=number, kind=Span.SPAN_KIND_SERVER)
        for number in numbers
    )


Start = Callable[[Export], Exporter]


@contextmanager
def starting(recorder: Recorder, transport: Callable[[Export], Transport]) -> Iterator[Start]:
    """Give what starts exporters that send by a transport; they end when it does."""
    started: list[Exporter] = []

    def make(settings: Export) -> Exporter:
        started.append(Exporter(settings, transport, log=StateLog(recorder), backoff=FAST))
        return started[-1]

    yield make
    for exporter in started:
        exporter.shutdown(0)


def to(collector: Collector, **changes: object) -> Export:
    return replace(SETTINGS, endpoint=f"http://127.0.0.1:{collector.port}", **changes)  # type: ignore[arg-type]


def total(status: ExportStatus) -> int:
    return status.sent + status.held + sum(status.dropped.values())


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.005)
