"""The span of every request, compared field by field with what the client sent and what the server logged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.comparison import compare
from tests.support.daemon import eventually, running
from tests.support.golang import NEWEST, VERSIONS, build
from tests.support.http import expects_span, send, serving

pytestmark = pytest.mark.kernel

MODES = ("http1", "http1.0", "close", "h2", "h2c")


@pytest.mark.parametrize("go", VERSIONS)
def test_every_request_of_every_kind(go: str, tmp_path: Path) -> None:
    trace_and_compare(go, MODES, 400, "-faults", "0.05", log=tmp_path / "log")


@pytest.mark.parametrize("go", [VERSIONS[0], NEWEST])
def test_many_at_a_time_on_connections_that_are_kept_alive(go: str, tmp_path: Path) -> None:
    trace_and_compare(go, ("http1",), 2000, "-connections", "64", "-faults", "0.01", log=tmp_path / "log")


def trace_and_compare(go: str, modes: tuple[str, ...], requests: int, *arguments: str, log: Path) -> None:
    program = build("http_server", go=go)
    with running() as daemon, serving(program, log=log) as server:
        eventually(lambda: daemon.traces(str(program)), "the server is traced")
        lines = [line for mode in modes for line in send(server, mode, *arguments, requests=requests)]
        wanted = [line for line in lines if expects_span(line)]
        eventually(lambda: len(daemon.spans_of(server.pid)) >= len(wanted), f"{len(wanted)} spans")
        last = daemon.stop()
        compare(daemon.spans_of(server.pid), wanted, log, go)
        assert last["dropped"] == {}
