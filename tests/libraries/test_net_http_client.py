"""Calls by a server's handlers, in every way in which a handler can: each has the span of its own request as parent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.calls import Calls, calls, requests, traced_calls
from tests.support.daemon import attributes
from tests.support.golang import NEWEST, VERSIONS
from tests.support.tracing import Tracing

pytestmark = pytest.mark.kernel

REQUESTS, CONNECTIONS = 32, 8
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

RIGHT = {
    "/handler": 1,
    "/no-context": 1,
    "/twice": 2,
    "/goroutine": 1,
    "/fan-out": 5,
    "/pool-with-context": 1,
    "/nested": 1,
    "/chain": 1,
    "/background": 1,
    "/panic": 1,
    "/moved": 3,
    "/other": 2,
}
"""Ways to call in which the parent is always found, and how many calls a request makes."""

NEVER_WRONG = {"/pool": 1, "/background-no-context": 1}
"""Ways to call in which nothing leads to the request for certain: no parent is better than the wrong one."""

BY_CREATOR = {
    "/goroutine-no-context": (1, 0.8),
    "/fan-out-no-context": (5, 0.5),
    "/after-a-while-no-context": (1, 0),
}
"""Calls by goroutines that a handler has started and that know nothing of the request; and what share at least has a
parent since Go 1.21: most, unless the handler has moved to another processor, or its processor's ids have run out."""

LAZY_WORKERS = 8
"""Started by the first request to "/lazy-pool" (tests/apps/http_calls/shapes.go)."""

FAILURES = {
    "/refused": "connection_refused",
    "/timeout": "timeout",
    "/canceled": "canceled",
    "/slow": "timeout",
    "/untrusted": "server_certificate_invalid",
    "/unknown": "name_not_resolved",
    "/aborted": "connection_closed",
}
"""Calls that get no response, and what error.type says of them."""


@pytest.fixture(scope="module", params=VERSIONS)
def traced(request: pytest.FixtureRequest) -> Iterator[tuple[Tracing, Calls]]:
    """The program, built by each release of Go, and traced."""
    with traced_calls(request.param) as both:
        yield both


def spans_of(
    traced: tuple[Tracing, Calls],
    path: str,
    calls_each: int,
    *,
    times: int = REQUESTS,
    http2: bool = False,
) -> tuple[list[Span], list[int]]:
    """Ask for something in this way, and wait until there is a span for each call."""
    watched, app = traced
    if http2:
        numbers = app.ask_http2(path, times, at_a_time=CONNECTIONS)
    else:
        numbers = app.ask(path, times, connections=min(CONNECTIONS, times))

    def complete() -> bool:
        spans = watched.spans_of(app.pid)
        made = [number for number, _ in calls(spans) if number in numbers]
        return len(made) >= times * calls_each and requests(spans).keys() >= set(numbers)

    watched.until(complete, f"{times * calls_each} calls")
    return watched.spans_of(app.pid), numbers


@pytest.mark.parametrize("path", RIGHT)
def test_every_call_is_a_child_of_its_request(traced: tuple[Tracing, Calls], path: str) -> None:
    check_children(traced, path, http2=False)


@pytest.mark.parametrize("traced", [VERSIONS[0], VERSIONS[-2], NEWEST], indirect=True)
def test_every_call_is_a_child_of_its_http_2_request(traced: tuple[Tracing, Calls]) -> None:
    """Each of which has a goroutine and a context of its own. Since Go 1.27 its type is HTTP/2's own."""
    for path in RIGHT:
        check_children(traced, path, http2=True)


def check_children(traced: tuple[Tracing, Calls], path: str, *, http2: bool) -> None:
    """Ask, and see that each call has the span of its own request as parent."""
    spans, numbers = spans_of(traced, path, RIGHT[path], http2=http2)
    asked = requests(spans)
    found = [(number, span) for number, span in calls(spans) if number in numbers]
    assert len(found) == REQUESTS * RIGHT[path]
    for number, span in found:
        assert span.parent_span_id == asked[number].span_id
        assert span.trace_id == asked[number].trace_id
        assert span.flags == 0x101


@pytest.mark.parametrize("path", NEVER_WRONG)
def test_no_call_is_a_child_of_another_request(traced: tuple[Tracing, Calls], path: str) -> None:
    spans, numbers = spans_of(traced, path, NEVER_WRONG[path])
    asked = requests(spans)
    for number, span in calls(spans):
        if number in numbers:
            assert span.parent_span_id in (b"", asked[number].span_id)
            assert bool(span.parent_span_id) == (span.trace_id == asked[number].trace_id)


@pytest.mark.parametrize("path", BY_CREATOR)
def test_calls_by_goroutines_that_the_handler_started(traced: tuple[Tracing, Calls], path: str) -> None:
    calls_each, share = BY_CREATOR[path]
    (executable,) = traced[0].tracer.executables
    knows_creator = not executable.plan.go_version.startswith(("go1.19", "go1.20"))
    for _ in range(3):  # a busy machine has handlers move more often
        spans, numbers = spans_of(traced, path, calls_each)
        asked = requests(spans)
        found = [(number, span) for number, span in calls(spans) if number in numbers]
        children = [(number, span) for number, span in found if span.parent_span_id]
        assert all(span.parent_span_id == asked[number].span_id for number, span in children)
        if not knows_creator:
            assert not children
            return
        if len(children) >= share * len(found):
            break
    assert len(children) >= share * len(found)


def test_workers_that_a_request_started(traced: tuple[Tracing, Calls]) -> None:
    """Of such a worker only the first job may count as that request's, and only if the job was there before it."""
    spans, numbers = spans_of(traced, "/lazy-pool", 1)
    asked = requests(spans)
    wrong = [
        number
        for number, span in calls(spans)
        if number in numbers and span.parent_span_id not in (b"", asked[number].span_id)
    ]
    assert len(wrong) <= LAZY_WORKERS


@pytest.mark.parametrize("path", RIGHT)
def test_no_call_of_an_unsampled_request_has_a_span(traced: tuple[Tracing, Calls], path: str) -> None:
    """Wherever it is made from: its parent is not sampled. Requests before it are, whose memory is used again, and so
    are those after it, on the same goroutines.
    """
    spans_of(traced, path, RIGHT[path])
    traced[1].ask("/collect", 1)
    unsampled = traced[1].ask(path, REQUESTS, connections=CONNECTIONS, headers={"traceparent": UNSAMPLED})
    # What they leave behind calls within 30 ms, before these do.
    spans_of(traced, "/background", 1)
    spans, _ = spans_of(traced, path, RIGHT[path])
    wrong = [span for number, span in calls(spans) if number in unsampled]
    assert not wrong, (wrong, traced[0].programs.counters())
    assert not requests(spans).keys() & set(unsampled)


def test_what_is_told_of_a_call(traced: tuple[Tracing, Calls]) -> None:
    spans, numbers = spans_of(traced, "/moved", 3)
    backend = traced[1].backend
    number = numbers[0]
    told = [attributes(span) for made_for, span in calls(spans) if made_for == number]
    common = {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": backend,
        "network.protocol.version": "1.1",
    }
    url = f"http://127.0.0.1:{backend}"
    assert told == [
        {**common, "http.response.status_code": 302, "url.full": f"{url}/moved?request={number}"},
        {
            **common,
            "http.response.status_code": 307,
            "http.request.resend_count": 1,
            "url.full": f"{url}/again?request={number}",
        },
        {
            **common,
            "http.response.status_code": 200,
            "http.request.resend_count": 2,
            "url.full": f"{url}/?request={number}",
        },
    ]


def only_call(traced: tuple[Tracing, Calls], path: str) -> Span:
    """Ask once, and give the span of the one call that is made."""
    spans, (number,) = spans_of(traced, path, 1, times=1)
    (span,) = [span for made_for, span in calls(spans) if made_for == number]
    assert span.parent_span_id == requests(spans)[number].span_id
    return span


@pytest.mark.parametrize("path", FAILURES)
def test_a_call_that_fails(traced: tuple[Tracing, Calls], path: str) -> None:
    span = only_call(traced, path)
    has = attributes(span)
    assert has["error.type"] == FAILURES[path]
    assert "http.response.status_code" not in has
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert span.status.message


@pytest.mark.parametrize("path", ["/h2", "/h2-direct"])
def test_http_2_with_and_without_the_transport_of_net_http(traced: tuple[Tracing, Calls], path: str) -> None:
    has = attributes(only_call(traced, path))
    assert (has["network.protocol.version"], has["http.response.status_code"]) == ("2", 200)
    assert "error.type" not in has


def test_what_is_secret_in_a_url_is_not_told(traced: tuple[Tracing, Calls]) -> None:
    url = attributes(only_call(traced, "/credentials"))["url.full"]
    host = f"127.0.0.1:{traced[1].backend}"
    assert url.startswith(f"http://REDACTED:REDACTED@{host}/a%20b/x%2Fy?sig=REDACTED&request=")


@pytest.mark.parametrize("traced", [NEWEST], indirect=True)
def test_a_status_that_is_an_error(traced: tuple[Tracing, Calls]) -> None:
    spans, numbers = spans_of(traced, "/other", 2)
    failed = [span for made_for, span in calls(spans) if made_for == numbers[0]]
    assert [attributes(span)["error.type"] for span in failed] == ["404", "502"]
    assert {span.status.code for span in failed} == {Status.STATUS_CODE_ERROR}
