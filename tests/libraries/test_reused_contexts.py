"""Memory in which one request has had its context is used again for another one's: what is known of the first must not
count for the second. When that happens is up to the garbage collector, so these tests bring it about in the programs'
maps: they move what was noted of one request to where another one has its context.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.request import urlopen

import pytest

from agent.kernel.formats import Value, format_of
from tests.libraries.test_net_http_client import UNSAMPLED
from tests.support.calls import Calls, calls, requests, traced_calls
from tests.support.context_notes import ContextNotes, Fields
from tests.support.golang import NEWEST, VERSIONS
from tests.support.tracing import Tracing

pytestmark = pytest.mark.kernel


@dataclass
class Notes:
    """What the programs know of a process: of its goroutines and of the contexts of its requests."""

    watched: Tracing
    app: Calls

    def __post_init__(self) -> None:
        self.contexts = ContextNotes(self.watched.programs)
        self._types = self.watched.programs.types["net_http_server"]
        self.connection = self._types.constants["CONTEXT_OF_CONNECTION"]
        self.call = self._types.constants["CONTEXT_OF_CALL"]

    def served(self) -> list[tuple[Fields, Value]]:
        """The goroutines that serve a request just now, and the address of its context."""
        keys, values = (format_of(self._types.struct(name)) for name in ("goroutine_key", "goroutine"))
        known = [
            (keys.unpack(key), values.unpack(value))
            for key, value in self.watched.programs.map("goroutines").items()
        ]
        return [(key, entry["request_context"]) for key, entry in known if entry["request_context"]]

    def held(self) -> tuple[Fields, Value]:
        """The one goroutine that serves a request which is held, and the address of its context."""
        self.watched.until(lambda: len(self.served()) == 1, "a request that is held")
        return self.served()[0]

    @contextmanager
    def holding(self, number: int, path: str = "/held", *, http2: bool = False) -> Iterator[list[int]]:
        """Requests that are held, one after the other; their numbers are there when the block has ended."""
        numbers: list[int] = []

        def ask() -> None:
            if http2:
                numbers.extend(self.app.ask_http2(path, number, at_a_time=1))
            else:
                numbers.extend(self.app.ask(path, number, headers={"traceparent": UNSAMPLED}))

        thread = threading.Thread(target=ask)
        thread.start()
        yield numbers
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module", params=[VERSIONS[0], NEWEST])
def notes(request: pytest.FixtureRequest) -> Iterator[Notes]:
    """A program that is traced; since Go 1.27 the context of an HTTP/2 connection is of the same type as others."""
    with traced_calls(request.param) as (watched, app):
        yield Notes(watched, app)


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1", "HTTP/2"])
def test_a_request_whose_context_is_where_that_of_a_closed_connection_was(notes: Notes, http2: bool) -> None:
    """A request that is not sampled: its call must not become the child of the one that was."""
    watched, app = notes.watched, notes.app
    (before,) = app.ask_http2("/nothing", 1, at_a_time=1) if http2 else app.ask("/nothing", 1)
    watched.until(lambda: before in requests(watched.spans_of(app.pid)), "the span of the request before")
    span = requests(watched.spans_of(app.pid))[before]
    (stale,) = [entry for _, entry in notes.contexts.all() if entry["trace.span_id"] == span.span_id]
    with notes.holding(1) as numbers:
        goroutine, context = notes.held()
        (connection,) = [
            key["address"]
            for key, entry in notes.contexts.all()
            if (entry["whose"], entry["goid"]) == (notes.connection, goroutine["goid"])
        ]
        notes.contexts.put(
            {"process": goroutine["process"], "address": context}, stale | {"parent": connection}
        )
        app.ask("/release", 1)
    # Its records come before this one's.
    (after,) = app.ask("/handler", 1)
    watched.until(lambda: after in dict(calls(watched.spans_of(app.pid))), "a call that is sampled")
    assert not [span for number, span in calls(watched.spans_of(app.pid)) if number in numbers]


def test_a_connection_whose_context_is_where_that_of_a_closed_one_was(notes: Notes) -> None:
    """An HTTP/2 connection, where a closed one had had requests that were not sampled: that is forgotten."""
    watched, app = notes.watched, notes.app
    with notes.holding(2, http2=True) as numbers:
        goroutine, context = notes.held()
        (noted,) = [entry for key, entry in notes.contexts.all() if key["address"] == context]
        where = {"process": goroutine["process"], "address": noted["parent"]}
        notes.contexts.put(where, {"whose": notes.connection, "goid": 1})
        app.ask("/release", 1)
        watched.until(
            lambda: goroutine not in [key for key, _ in notes.served()], "the end of the first request"
        )
        notes.held()
        assert where not in [key for key, _ in notes.contexts.all()]
        app.ask("/release", 1)
    check_parents(notes, numbers)


def check_parents(notes: Notes, numbers: list[int]) -> None:
    """Each call is the child of its own request."""
    spans = notes.watched.spans_of

    def complete() -> bool:
        found = spans(notes.app.pid)
        return set(numbers) <= dict(calls(found)).keys() & requests(found).keys()

    notes.watched.until(complete, "all calls")
    parents = requests(spans(notes.app.pid))
    for number, span in calls(spans(notes.app.pid)):
        if number in numbers:
            assert span.parent_span_id == parents[number].span_id


def test_a_context_that_is_where_another_request_had_one_for_a_call(notes: Notes) -> None:
    """As a gRPC server that net/http serves has: made from the request's context, and noted as well."""
    with notes.holding(1, "/held-derived", http2=True) as numbers:
        goroutine, context = notes.held()
        with urlopen(f"http://127.0.0.1:{notes.app.port}/derived", timeout=10) as answer:
            address = int(answer.read(), 16)
        (noted,) = [entry for key, entry in notes.contexts.all() if key["address"] == context]
        stale = noted | {
            "goid": 1,
            "parent": context,
            "whose": notes.call,
            "trace.trace_id": bytes(range(16)),
            "trace.span_id": bytes(range(8)),
        }
        notes.contexts.put({"process": goroutine["process"], "address": address}, stale)
        notes.app.ask("/release", 1)
    check_parents(notes, numbers)
