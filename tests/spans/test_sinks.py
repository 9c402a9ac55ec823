"""Sinks other than a collector: memory, terminal, nowhere."""

from __future__ import annotations

import io
import os
import pty
import re
import time

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.config import Export, Sink
from agent.spans.otlp import Origin, encode_spans
from agent.spans.sinks import ConsoleTransport, NullSink, RecentSpans, format_span, open_sink

SHOP = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="shop"))])
ORIGIN = Origin.of(SHOP, InstrumentationScope(name="net/http"))


def numbered(numbers: range) -> list[bytes]:
    return encode_spans(Span(start_time_unix_nano=number) for number in numbers)


def test_recent_spans_are_the_last_ones() -> None:
    recent = RecentSpans(100)
    assert recent.since() == []
    for first in range(0, 1000, 7):
        recent.put(ORIGIN, numbered(range(first, min(first + 7, 1000))))
    kept = recent.since()
    assert [item.span.start_time_unix_nano for item in kept] == list(range(900, 1000))
    assert [item.number for item in kept] == list(range(900, 1000))
    assert kept[0].resource == SHOP
    assert kept[0].scope.name == "net/http"


def test_recent_spans_can_be_followed() -> None:
    recent = RecentSpans(100)
    recent.put(ORIGIN, numbered(range(10)))
    first = recent.since()
    recent.put(ORIGIN, numbered(range(10, 15)))
    assert [item.number for item in recent.since(first[-1].number + 1)] == list(range(10, 15))
    assert recent.since(15) == []


def test_recent_spans_with_chunks_larger_than_the_limit() -> None:
    recent = RecentSpans(10)
    recent.put(ORIGIN, numbered(range(1000)))
    assert [item.span.start_time_unix_nano for item in recent.since()] == list(range(990, 1000))
    none = RecentSpans(0)
    none.put(ORIGIN, numbered(range(5)))
    assert none.since() == []


def test_nowhere() -> None:
    sink = open_sink(Export(sink=Sink.NONE))
    assert isinstance(sink, NullSink)
    sink.put(ORIGIN, numbered(range(5)))
    assert sink.flush(1)
    assert sink.shutdown(1)
    assert [status.sent for status in sink.status()] == [5]


def request_span() -> Span:
    return Span(
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
        parent_span_id=b"\xff" * 8,
        name="GET /items/{id}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1_700_000_000_123_456_789,
        end_time_unix_nano=1_700_000_000_125_456_789,
        attributes=[
            KeyValue(key="http.response.status_code", value=AnyValue(int_value=500)),
            KeyValue(key="url.path", value=AnyValue(string_value="/items/\x1b[2J")),
            KeyValue(
                key="list",
                value=AnyValue(array_value=ArrayValue(values=[AnyValue(bool_value=True), AnyValue()])),
            ),
        ],
        status=Status(code=Status.STATUS_CODE_ERROR),
    )


def test_line_of_a_span() -> None:
    line = format_span(SHOP, request_span())
    clock = time.strftime("%H:%M:%S", time.localtime(1_700_000_000))
    assert line == (
        f"{clock}.123 shop server GET /items/{{id}} 2.00ms error http.response.status_code=500 "
        "url.path=/items/\\x1b[2J "
        "list=[True,] trace=000102030405060708090a0b0c0d0e0f span=0001020304050607 parent=ffffffffffffffff"
    )
    assert "parent" not in format_span(SHOP, Span())
    assert format_span(Resource(), Span()).split()[1] == "?"


@pytest.mark.parametrize(
    ("nanoseconds", "text"), [(999, "1us"), (1_500_000, "1.50ms"), (2_500_000_000, "2.50s"), (0, "0us")]
)
def test_durations(nanoseconds: int, text: str) -> None:
    assert f" {text} " in format_span(SHOP, Span(end_time_unix_nano=nanoseconds))


def test_console_writes_every_span_once(capsys: pytest.CaptureFixture[str]) -> None:
    sink = open_sink(Export(sink=Sink.CONSOLE, schedule_delay=60.0))
    sink.put(ORIGIN, encode_spans([request_span()] * 5))
    assert sink.flush(5)
    assert sink.shutdown(5)
    assert [status.sent for status in sink.status()] == [5]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [format_span(SHOP, request_span())] * 5


def test_colour_is_for_terminals() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        ConsoleTransport(terminal).send([(ORIGIN, encode_spans([request_span()]))], 1.0)
        text = os.read(leader, 4096).decode()
    os.close(leader)
    assert re.sub(r"\x1b\[[0-9;]*m", "", text).strip() == format_span(SHOP, request_span())
    assert "\x1b[31m" in text


def test_output_that_is_gone_is_a_counted_loss() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = io.TextIOWrapper(os.fdopen(writer, "wb", buffering=0), write_through=True)
    outcome = ConsoleTransport(stream).send([(ORIGIN, encode_spans([request_span()]))], 1.0)
    assert str(outcome) == "OUTPUT: Broken pipe"
