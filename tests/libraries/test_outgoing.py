"""A client's requests of which many are open at a time: each goes out with its own context, or with none."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.kernel.formats import format_of
from tests.support.calls import Calls, number_in, requests, traced_calls
from tests.support.daemon import attributes
from tests.support.golang import NEWEST, VERSIONS
from tests.support.tracing import Tracing

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", params=[VERSIONS[0], NEWEST])
def traced(request: pytest.FixtureRequest) -> Iterator[tuple[Tracing, Calls]]:
    with traced_calls(request.param) as both:
        yield both


def both_ends(traced: tuple[Tracing, Calls], path: str, calls_each: int) -> list[tuple[Span, Span | None]]:
    """Ask once, and give what the backend was asked for then, each with the call that it is the child of."""
    (number,) = traced[1].ask(path, 1)
    return ends_of(traced, number, calls_each)


def ends_of(traced: tuple[Tracing, Calls], number: int, calls_each: int) -> list[tuple[Span, Span | None]]:
    """Give what the backend was asked for on behalf of a request, each with the call that it is the child of."""
    watched, app = traced

    def url(span: Span, key: str) -> str:
        return "?" + str(attributes(span).get(key, "")).split("?")[-1]

    def of_request(kind: Span.SpanKind.ValueType, key: str) -> list[Span]:
        spans = [span for span in watched.spans_of(app.pid) if span.kind == kind]
        return [span for span in spans if number_in(url(span, key), "request") == number]

    def came() -> list[Span]:
        return of_request(Span.SPAN_KIND_SERVER, "url.query")

    watched.until(lambda: len(came()) == calls_each, f"{calls_each} requests to the backend")
    watched.until(lambda: number in requests(watched.spans_of(app.pid)), "the request itself")
    made = {span.span_id: span for span in of_request(Span.SPAN_KIND_CLIENT, "url.full")}
    assert len(made) == calls_each
    return [(span, made.get(span.parent_span_id)) for span in came()]


def test_header_maps_side_by_side(traced: tuple[Tracing, Calls]) -> None:
    """More than the places that those of a page have for themselves: the others find theirs elsewhere. Only where two
    processors are at it for long, as the one was interrupted, a call goes out without its context, which is counted.
    """
    lost = ("contexts_unknown_request", "contexts_shared_header")
    for _ in range(3):
        before = traced[0].programs.counters()
        ends = both_ends(traced, "/prepared", 128)
        after = traced[0].programs.counters()
        found = [(came, call) for came, call in ends if call is not None]
        for came, call in found:
            assert attributes(call)["url.full"].endswith("?" + attributes(came)["url.query"])
        assert len(ends) - len(found) <= sum(after[name] - before[name] for name in lost)
        assert len(found) > 120


def test_one_header_map(traced: tuple[Tracing, Calls]) -> None:
    """Of requests at a time: which of them is written is not known, so that at most the last one can have a parent."""
    for _ in range(10):
        for came, call in both_ends(traced, "/shared", 4):
            assert bool(call) == bool(came.parent_span_id)
            if call:
                assert attributes(call)["url.full"].endswith("?" + attributes(came)["url.query"])


def have_turns(watched: Tracing, turn: int) -> None:
    """As if another processor, interrupted, was just looking for a place in each of the sets; or no longer."""
    sets = watched.programs.map("outgoing_headers")
    at = format_of(watched.programs.types["net_http_client"].struct("outgoing_set")).offset("turn")
    for key, entry in list(sets.items()):
        sets.update(key, entry[:at] + turn.to_bytes(4, "little") + entry[at + 4 :])


def test_a_request_without_a_place(traced: tuple[Tracing, Calls]) -> None:
    """Another one with its header map is not taken for it, although that is the only one which has a place."""
    watched, app = traced
    numbers: list[int] = []
    thread = threading.Thread(target=lambda: numbers.extend(app.ask("/pair", 1)))
    before = watched.programs.counters()

    def more(name: str) -> int:
        return watched.programs.counters()[name] - before[name]

    have_turns(watched, 1)
    thread.start()
    watched.until(lambda: more("contexts_unknown_request") == 1, "the first request")
    have_turns(watched, 0)
    app.ask("/release", 1)
    thread.join(30)
    assert not thread.is_alive()
    assert [call for _, call in ends_of(traced, numbers[0], 2)] == [None, None]
    assert (more("contexts_unknown_request"), more("contexts_shared_header")) == (1, 1)
    ((came, call),) = both_ends(traced, "/handler", 1)
    assert call is not None
    assert came.parent_span_id == call.span_id
