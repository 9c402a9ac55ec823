"""The agent as its users run it, a traced program, and a real OpenTelemetry Collector: every span gets through."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.config import Protocol
from tests.spans.collector import Collector, serving
from tests.support import real_collector
from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.golang import build
from tests.support.http import Server
from tests.support.http import serving as serving_program

pytestmark = pytest.mark.kernel

REQUESTS = 1500
BATCH = 64


@contextmanager
def asking(server: Server, count: int) -> Iterator[list[int]]:
    """Send requests one after the other while the block runs, at some 500 a second; those that were answered."""
    answered: list[int] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.ports["http"], timeout=30)
        for number in range(count):
            connection.request("GET", f"/asked/{number}")
            answer = connection.getresponse()
            answer.read()
            answered.append(number)
            time.sleep(0.002)
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answered
    finally:
        thread.join()


def arrived(collector: Collector, pid: int) -> Counter[str]:
    """The paths of the spans of a process that a collector has, with how often each was sent."""
    with collector.lock:
        requests = list(collector.requests)
    return Counter(
        attributes(span)["url.path"]
        for request in requests
        for resource in request.resource_spans
        if attributes(resource.resource)["process.pid"] == pid
        for scope in resource.scope_spans
        for span in scope.spans
    )


def config(tmp_path: Path, protocol: Protocol, port: int, program: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        f'[export]\nendpoint = "http://127.0.0.1:{port}"\nprotocol = "{protocol.value}"\nbatch_size = {BATCH}\n'
        f'[discovery]\ninclude = [{{ exe = "{program}" }}]\n[metrics]\nexporters = []\n'
    )
    return path


@pytest.mark.parametrize("protocol", list(Protocol))
def test_every_span_gets_through_a_collector_that_is_killed(tmp_path: Path, protocol: Protocol) -> None:
    program = build("http_server")
    with (
        serving(Collector()) as beyond,
        real_collector.running(tmp_path, {"traces": beyond.port}) as collector,
        running(
            config=config(tmp_path, protocol, collector.ports[protocol, real_collector.PLAIN], program),
            collecting=False,
        ) as daemon,
        serving_program(program) as server,
    ):
        eventually(lambda: daemon.traces(str(program)), "the program is traced")
        with asking(server, REQUESTS) as answered:
            eventually(lambda: len(arrived(beyond, server.pid)) > BATCH, "spans arrive")
            collector.kill()
            eventually(lambda: daemon.said("Spans don't reach"), "the agent tells of it")
            at_least = len(answered) + 100
            eventually(lambda: len(answered) >= min(at_least, REQUESTS), "requests go on")
            collector.start()
        eventually(lambda: len(arrived(beyond, server.pid)) >= REQUESTS, "all spans arrive")
        last = daemon.stop()
        got = arrived(beyond, server.pid)
        assert got.keys() == {f"/asked/{number}" for number in range(REQUESTS)}
        # What had been passed on when the Collector was killed, but not answered, was sent again.
        assert got.total() - REQUESTS <= BATCH
        assert said_once(daemon, "Spans don't reach") and said_once(daemon, "Spans reach")
        assert last["dropped"] == {}, last


def said_once(daemon: Daemon, text: str) -> bool:
    return sum(text in message.get("message", "") for message in daemon.messages) == 1
