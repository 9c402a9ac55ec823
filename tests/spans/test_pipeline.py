"""From records to sinks, with a made-up library."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

import pytest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent import __version__
from agent.kernel.formats import Format
from agent.kernel.programs import RecordKind
from agent.libraries import Library
from agent.spans.otlp import Origin
from agent.spans.pipeline import Pipeline
from agent.spans.records import Encoder, record_kind, record_process, record_start, record_tgid

HEADER = struct.Struct("<HHIIIQQ")
NAMED, OTHER, PROCESS, NOBODYS = 1, 2, 3, 9


def encoder(_: Format) -> Encoder:
    def encode(record: bytes, clock: int) -> bytes:
        name = record[HEADER.size :].decode()
        return Span(name=name, start_time_unix_nano=record_start(record) + clock).SerializeToString()

    return encode


def library(name: str, record: str) -> Library:
    return Library(
        name=name, object=name, probes=(), features=(), records={record: encoder}, schema_url="https://schema"
    )


def kinds() -> dict[int, RecordKind]:
    def kind(number: int, record: str, owner: Library | None) -> RecordKind:
        return RecordKind(number, Format(record, (), struct.Struct("<")), owner)

    return {
        NAMED: kind(NAMED, "named", library("one", "named")),
        OTHER: kind(OTHER, "other", library("two", "other")),
        PROCESS: kind(PROCESS, "process_exec_record", None),
    }


def record(kind: int, process: int, name: bytes, *, start: int = 0) -> bytes:
    return HEADER.pack(kind, HEADER.size + len(name), 77, 0, 0, process, start) + name


class Sink:
    def __init__(self) -> None:
        self.put_spans: list[tuple[Origin, list[str]]] = []

    def put(self, origin: Origin, spans: Sequence[bytes]) -> None:
        self.put_spans.append((origin, [Span.FromString(one).name for one in spans]))


def resource(name: str) -> Resource:
    made = KeyValue(key="service.name")
    made.value.string_value = name
    return Resource(attributes=[made])


def test_headers() -> None:
    made = record(NAMED, 1 << 40, b"x", start=1 << 50)
    assert record_kind(made) == NAMED
    assert record_tgid(made) == 77
    assert record_process(made) == 1 << 40
    assert record_start(made) == 1 << 50
    assert record_kind(record(0x1234, 0, b"")) == 0x1234


def test_batches_by_process_and_library_to_every_sink() -> None:
    first, second = Sink(), Sink()
    pipeline = Pipeline(kinds(), [first.put, second.put])
    for number in (1, 2):
        pipeline.know(number, resource(f"service-{number}"))
    pipeline.encode(
        [record(NAMED, 1, b"a"), record(NAMED, 2, b"b"), record(OTHER, 1, b"c"), record(NAMED, 1, b"d")]
    )
    assert [names for _, names in first.put_spans] == [["a", "d"], ["b"], ["c"]]
    assert second.put_spans == first.put_spans
    origins = [origin for origin, _ in first.put_spans]
    assert [Resource.FromString(one.resource) for one in origins] == [
        resource(f"service-{number}") for number in (1, 2, 1)
    ]
    assert [InstrumentationScope.FromString(one.scope).name for one in origins] == [
        "gospan/one",
        "gospan/one",
        "gospan/two",
    ]
    assert InstrumentationScope.FromString(origins[0].scope).version == __version__
    assert {one.schema_url for one in origins} == {"https://schema"}
    assert pipeline.counts.made == 4
    assert (pipeline.counts.unreadable, pipeline.counts.orphaned) == (0, 0)


def test_what_can_not_be_read_is_counted_and_costs_nothing_else() -> None:
    sink = Sink()
    pipeline = Pipeline(kinds(), [sink.put])
    pipeline.know(1, resource("x"))
    pipeline.encode(
        [
            record(NAMED, 1, b"\xff"),
            record(NOBODYS, 1, b"a"),
            record(PROCESS, 1, b"b"),
            record(NAMED, 1, b"good"),
        ]
    )
    assert [names for _, names in sink.put_spans] == [["good"]]
    assert pipeline.counts.unreadable == 3
    assert pipeline.counts.made == 1


def test_spans_of_unknown_and_forgotten_processes_are_counted() -> None:
    sink = Sink()
    pipeline = Pipeline(kinds(), [sink.put])
    pipeline.encode([record(NAMED, 1, b"early")])
    pipeline.know(1, resource("x"))
    pipeline.encode([record(NAMED, 1, b"known")])
    pipeline.forget(1)
    pipeline.forget(1)
    pipeline.encode([record(NAMED, 1, b"late"), record(OTHER, 1, b"late")])
    assert [names for _, names in sink.put_spans] == [["known"]]
    assert pipeline.counts.orphaned == 3
    assert pipeline.counts.made == 1


def test_nothing_is_put_for_nothing() -> None:
    sink = Sink()
    Pipeline(kinds(), [sink.put]).encode([])
    assert sink.put_spans == []


def test_times_are_unix_times() -> None:
    found: list[Span] = []
    pipeline = Pipeline(kinds(), [lambda _, spans: found.extend(map(Span.FromString, spans))])
    pipeline.know(1, resource("x"))
    before = time.time_ns()
    pipeline.encode([record(NAMED, 1, b"now", start=time.monotonic_ns())])
    after = time.time_ns()
    (span,) = found
    assert before - 10_000_000 <= span.start_time_unix_nano <= after + 10_000_000


def test_time_runs_on_while_the_clock_is_hardly_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    pipeline = Pipeline(
        kinds(),
        [lambda _, spans: found.extend(Span.FromString(one).start_time_unix_nano for one in spans)],
    )
    pipeline.know(1, resource("x"))
    wall = 1_700_000_000_000_000_000
    for step in (0, 30_000, -30_000, 5_000_000):
        monkeypatch.setattr("agent.spans.pipeline.time.monotonic_ns", lambda: 1000)
        monkeypatch.setattr("agent.spans.pipeline.time.time_ns", lambda now=wall + step: now)
        pipeline.encode([record(NAMED, 1, b"x", start=1000)])
    assert found == [wall, wall, wall, wall + 5_000_000]
