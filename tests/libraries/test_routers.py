"""The route of every request, by each router: its oldest and newest version, and where its types changed between."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.config import Config, Selector
from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.golang import NEWEST, build
from tests.support.tracing import tracing

pytestmark = pytest.mark.kernel


@dataclass(frozen=True)
class Case:
    """A request and the route that its span has; "" for none."""

    path: str
    route: str
    status: int | None = 200
    method: str = "GET"
    host: str = "example.com"


REDIRECTED = None
"""By ServeMux: with 301, or 307 since Go 1.26."""

SERVE_MUX = [
    Case("/servemux/users/7", "/servemux/users/{id}"),
    Case("/servemux/users/7", "", 405, method="POST"),
    Case("/servemux/files/a/b", "/servemux/files/{rest...}"),
    Case("/servemux/carts/1", "/servemux/carts/{cart}", host="shop.example.com"),
    Case("/servemux/crash/1", "/servemux/crash/{id}", None),
    Case("/servemux/dir", "", REDIRECTED),
    Case("/servemux/dir/", "/servemux/dir/"),
    Case("/servemux//files/a", "", REDIRECTED),
    Case("/servemux/moved", "/servemux/moved", 302),
    Case("/servemux/nothing", "", 404),
    # Behind something that replaces the request.
    Case("/context/users/7", "/context/users/{id}"),
    Case("/context/nothing", "", 404),
    Case("/context/dir", "", REDIRECTED),
    Case("/copied/users/7", "/copied/users/{id}"),
    Case("/strip/users/7", "/users/{id}"),
    # One mux in another: the inner one's word counts.
    Case("/nested/users/7", "/users/{id}"),
    Case("/nested/nothing", "", 404),
    Case("/nested/gin/users/7", "/nested/gin/users/:id"),
    Case("/nested/gin/nothing", "", 404),
    Case("/gin/inner/things/1", "/things/{thing}"),
    Case("/gin/inner/nothing", "", 404),
]

GIN = [
    Case("/gin/users/7", "/gin/users/:id"),
    Case("/gin/users/7", "", 405, method="PUT"),
    Case("/gin/users/7/orders/9", "/gin/users/:id/orders/:order", method="POST"),
    Case("/gin/files/a/b", "/gin/files/*path"),
    Case("/gin/static", "/gin/static"),
    Case("/gin/static?token=1&b=2", "/gin/static"),
    Case("/gin/static/", "", 301),
    Case("/gin/STATIC", "", 301),
    Case("/gin/status/1", "/gin/status/:code", 418),
    Case("/gin/crash/1", "/gin/crash/:id", None),
    Case("/gin/taken/1", "/gin/taken/:id", None),
    Case("/gin/again/5", "/gin/users/:id"),
    Case("/gin/nothing", "", 404),
]

MUX = [
    Case("/mux/users/7", "/mux/users/{id}"),
    Case("/mux/users/7", "", 405, method="PUT"),
    Case("/mux/users/7/", "", 301),
    Case("/mux/numbers/12", "/mux/numbers/{number:[0-9]+}"),
    Case("/mux/numbers/x", "", 404),
    Case("/mux/dir/", "/mux/dir/"),
    Case("/mux/dir", "", 301),
    Case("/mux//dir/", "", 301),
    Case("/mux/crash/1", "/mux/crash/{id}", None),
    Case("/mux/taken/1", "/mux/taken/{id}", None),
    Case("/mux/v1/orders/1/lines/2", "/mux/v1/orders/{order}/lines/{line}"),
    Case("/mux/v1/orders/1/lines/2", "/mux/v1/orders/{order}/lines/{line}", method="POST"),
    Case("/mux/v1/files/a/b", "/mux/v1/files/"),
    Case("/mux/v1/nothing", "", 404),
    Case("/mux/other/known", "/mux/other/known"),
    Case("/mux/other/unknown", "", 404),
]

CHI = [
    Case("/chi/files/a/b", "/chi/files/*"),
    Case("/chi/crash/1", "/chi/crash/{id}", None),
    Case("/chi/taken/1", "/chi/taken/{id}", None),
    Case("/chi/api/status", "/chi/api/status"),
    Case("/chi/api/status", "", 405, method="PUT"),
    Case("/chi/api/users/", "/chi/api/users"),
    Case("/chi/api/users/7", "/chi/api/users/{id}"),
    Case("/chi/api/users/7/orders/9", "/chi/api/users/{id}/orders/{order:[0-9]+}", method="POST"),
    Case("/chi/api/users/7/orders/x", "", 404, method="POST"),
    Case("/chi/api/admin/logs/monday", "/chi/api/admin/logs/{day}"),
    Case("/chi/api/admin/nothing", "", 404),
    Case("/chi/api/plain/any/thing", "/chi/api/plain/*"),
    Case("/chi/nothing", "", 404),
]


def echo(name: str) -> list[Case]:
    return [
        Case(f"/{name}/v1/users/7", f"/{name}/v1/users/:id"),
        Case(f"/{name}/v1/users/7/orders/9", f"/{name}/v1/users/:id/orders/:order", method="POST"),
        Case(f"/{name}/v1/files/a/b", f"/{name}/v1/files/*"),
        Case(f"/{name}/v1/crash/1", f"/{name}/v1/crash/:id", None),
        Case(f"/{name}/nothing", "", 404),
    ]


ECHO = [*echo("echo"), *echo("echoearly")]

# The versions of each router that a build has, and the Go release that it is built with.
BUILDS = {
    "old": ("1.19.13", [*GIN, *MUX, *CHI, *ECHO]),
    "middle": ("1.23.12", [*SERVE_MUX, *GIN, *MUX, *CHI, *ECHO]),
    "newest": (NEWEST, [*SERVE_MUX, *GIN, *MUX, *CHI, *ECHO, *echo("echo5"), *echo("echo5early")]),
}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running("http.redact_query=token") as daemon:
        yield daemon


def program_of(name: str) -> Path:
    tags, modfile = ([], "") if name == "newest" else ([name], f"{name}.mod")
    return build("routers", go=BUILDS[name][0], tags=tags, modfile=modfile)


@contextmanager
def serving(
    program: Path, *, environment: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[int, int]]:
    """Run a program, `environment` added to ours; give its process and its port."""
    process = subprocess.Popen(
        [program], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    try:
        yield process.pid, json.loads(process.stdout.readline())["http"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        process.stdout.close()


def request(connection: http.client.HTTPConnection, case: Case, number: int) -> None:
    """Send a request on a connection that is kept alive, as far as the server does that."""
    headers = {"Host": case.host, "User-Agent": str(number)}
    try:
        connection.request(case.method, case.path, headers=headers)
        response = connection.getresponse()
        response.read()
    except http.client.RemoteDisconnected:
        assert case.status is None
    else:
        assert case.status in (response.status, None), (case, response.status)


def request_all(connection: http.client.HTTPConnection, cases: list[Case]) -> None:
    """Send a request of each kind, one after the other."""
    for number, case in enumerate(cases):
        request(connection, case, number)


@pytest.mark.parametrize("name", BUILDS)
def test_every_route_of_every_router(daemon: Daemon, name: str) -> None:
    cases = BUILDS[name][1]
    program = program_of(name)
    with serving(program) as (pid, port):
        eventually(lambda: daemon.traces(str(program)), "the server is traced")
        connection = http.client.HTTPConnection("127.0.0.1", port)
        request_all(connection, cases)
        connection.close()
        eventually(lambda: len(daemon.spans_of(pid)) >= len(cases), f"{len(cases)} spans")
    spans = {int(attributes(span)["user_agent.original"]): span for span in daemon.spans_of(pid)}
    wrong = [
        (case, spans[number].name) for number, case in enumerate(cases) if not is_right(case, spans[number])
    ]
    assert not wrong
    assert [attributes(span)["url.query"] for span in spans.values() if "url.query" in attributes(span)] == [
        "token=REDACTED&b=2"
    ]


RATIO = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.2"}


@pytest.mark.parametrize("name", ["old", "newest"])
def test_the_routes_of_those_that_are_sampled(name: str) -> None:
    """Where most requests are not, as a ratio is sampled."""
    cases, program = BUILDS[name][1], program_of(name)
    discovery = replace(Config().discovery, include=(Selector(exe=str(program)),))
    with (
        tracing(replace(Config(), discovery=discovery)) as watched,
        serving(program, environment=RATIO) as (pid, port),
    ):
        watched.tracer.scan()
        assert watched.traced(program) == [pid]
        connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(4)]
        with ThreadPoolExecutor(len(connections)) as pool:
            for _ in range(5):
                list(pool.map(lambda one: request_all(one, cases), connections))
        for connection in connections:
            connection.close()
        watched.until(
            lambda: len(watched.spans_of(pid)) == watched.programs.counters()["spans_ended"], "all spans"
        )
        spans = watched.spans_of(pid)
    sent = 5 * len(connections) * len(cases)
    assert 0.1 * sent < len(spans) < 0.3 * sent
    wrong = [
        span for span in spans if not is_right(cases[int(attributes(span)["user_agent.original"])], span)
    ]
    assert not wrong


@pytest.mark.parametrize("name", ["old", "newest"])
def test_a_gin_context_is_a_context(daemon: Daemon, name: str) -> None:
    """What is called with it is a child of its request, from any goroutine; three times, as Contexts come again."""
    ways = ["here", "worker", "derived"] * 3
    with serving(program_of(name)) as (pid, port):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        eventually(lambda: daemon.traces(str(program_of(name))), "the server is traced")
        for number, how in enumerate(ways):
            url = f"http://127.0.0.1:{port}/gin/static?{number}"
            request(connection, Case(f"/gin/call/{how}?url={url}", ""), number)
        connection.close()
        eventually(
            lambda: len(daemon.spans_of(pid)) >= 3 * len(ways), "a call and what it leads to, each time"
        )
        spans = daemon.spans_of(pid)
    outer = [span for span in spans if span.name == "GET /gin/call/:how"]
    calls = {span.parent_span_id: span for span in spans if span.kind == Span.SPAN_KIND_CLIENT}
    assert len(outer) == len(calls) == len(ways)
    for number, span in enumerate(sorted(outer, key=lambda one: one.start_time_unix_nano)):
        made = calls[span.span_id]
        assert made.trace_id == span.trace_id
        assert str(attributes(made)["url.full"]).endswith(f"?{number}")


def is_right(case: Case, span: Span) -> bool:
    name = " ".join(filter(None, (case.method, case.route)))
    return attributes(span).get("http.route", "") == case.route and span.name == name
