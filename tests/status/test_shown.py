from __future__ import annotations

from dataclasses import replace

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.spans.sinks import RecentSpan
from agent.status.operations import Window, quantile
from agent.status.rates import Rates
from agent.status.shown import Filter, ShownSpan
from agent.status.trace import tree

SECOND = 1_000_000_000


def attribute(key: str, **value: object) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(**value))  # type: ignore[arg-type]


@pytest.fixture
def span() -> ShownSpan:
    return ShownSpan.of(
        RecentSpan(
            7,
            Resource(
                attributes=[
                    attribute("service.name", string_value="shop"),
                    attribute("process.pid", int_value=9),
                ]
            ),
            InstrumentationScope(name="gospan/net_http_server"),
            Span(
                name="GET /a",
                kind=Span.SPAN_KIND_SERVER,
                trace_id=bytes(range(16)),
                span_id=b"\1" * 8,
                start_time_unix_nano=SECOND,
                end_time_unix_nano=3 * SECOND,
                status=Status(code=Status.STATUS_CODE_ERROR, message="no"),
                attributes=[
                    attribute("http.response.status_code", int_value=500),
                    attribute("tls", bool_value=True),
                    attribute("some", array_value=ArrayValue(values=[AnyValue(string_value="x")])),
                ],
            ),
        )
    )


def test_what_a_span_says(span: ShownSpan) -> None:
    assert span.as_json() == {
        "number": 7,
        "service": "shop",
        "pid": 9,
        "library": "net_http_server",
        "name": "GET /a",
        "kind": "server",
        "start_ns": SECOND,
        "end_ns": 3 * SECOND,
        "duration_ns": 2 * SECOND,
        "status": "error",
        "message": "no",
        "trace_id": "000102030405060708090a0b0c0d0e0f",
        "span_id": "01" * 8,
        "parent_id": "",
        "attributes": {"http.response.status_code": 500, "tls": True, "some": ["x"]},
    }


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Filter(), True),
        (Filter(service="sh*"), True),
        (Filter(service="sh"), False),
        (Filter(name="GET /*", kind="server", status="error"), True),
        (Filter(kind="client"), False),
        (Filter(status="unset"), False),
        (Filter(min_duration=2 * SECOND), True),
        (Filter(min_duration=2 * SECOND + 1), False),
        (Filter(trace="0001"), True),
        (Filter(trace="01"), False),
        (Filter(attributes=(("http.response.status_code", "5??"),)), True),
        (Filter(attributes=(("http.response.status_code", "5*"), ("missing", "*"))), False),
    ],
)
def test_filters(span: ShownSpan, wanted: Filter, matches: bool) -> None:
    assert wanted.matches(span) is matches


def test_a_trace_is_a_tree(span: ShownSpan) -> None:
    def one(name: str, parent: str, start: int) -> ShownSpan:
        return replace(span, name=name, span_id=name, parent_id=parent, start=start, end=start + 5)

    spans = [
        one("c", "a", 5),
        one("b", "a", 3),
        one("d", "b", 4),
        one("a", "outside", 1),
        one("e", "gone", 2),
    ]
    assert [(node.span.name, node.depth, node.orphan) for node in tree(spans)] == [
        ("a", 0, True),
        ("b", 1, False),
        ("d", 2, False),
        ("c", 1, False),
        ("e", 0, True),
    ]
    # Ids are whatever somebody sends: a circle, a span that is its own parent, one that comes twice.
    circle = [one("x", "y", 1), one("y", "x", 2), one("z", "z", 3), one("z", "z", 4)]
    assert sorted(node.span.name for node in tree(circle)) == ["x", "y", "z"]
    deep = [one(str(number), str(number - 1), number) for number in range(5000)]
    assert [node.depth for node in tree(deep)] == list(range(5000))


def test_operations(span: ShownSpan) -> None:
    window = Window(10)
    for number in range(1, 101):
        end = 100 * SECOND + number
        window.add(
            replace(span, start=end - number * 1000, end=end, status="error" if number > 90 else "unset")
        )
    window.add(replace(span, service="other", start=100 * SECOND, end=100 * SECOND + 5))
    window.add(replace(span, service="late", start=0, end=SECOND))
    busiest, other = window.operations(105 * SECOND, 100 * SECOND)
    assert (busiest.service, busiest.spans, busiest.errors) == ("shop", 100, 10)
    assert (busiest.p50, busiest.p95, busiest.longest) == (50_000, 95_000, 100_000)
    assert busiest.per_second == pytest.approx(20, rel=0.01)
    assert (other.service, other.spans) == ("other", 1)
    assert window.operations(120 * SECOND, 100 * SECOND) == []


def test_quantiles_by_nearest_rank() -> None:
    shares = (0.0, 0.25, 0.5, 0.51, 0.95, 1.0)
    assert [quantile([10, 20, 30, 40], share) for share in shares] == [
        10,
        10,
        20,
        30,
        40,
        40,
    ]
    assert quantile([7], 0.5) == 7


def test_rates() -> None:
    now = [0.0]
    rates = Rates(lambda: now[0])
    assert rates.total(0) == 0
    now[0] = 5
    assert (rates.total(50), rates.of(1, 20), rates.of(2, 0)) == (10, 4, 0)
    now[0] = 10
    rates.note(100, {1: 40})
    now[0] = 20
    rates.note(100, {1: 40})
    now[0] = 25
    # The older of two notes is from the tenth second: the process's spans before that don't count any more.
    assert (rates.total(130), rates.of(1, 40), rates.of(3, 15)) == (2, 0, 1)
