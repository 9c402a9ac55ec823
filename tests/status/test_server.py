"""The status socket, with real clients; what the agent's loop does is done by the test."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.spans.otlp import Origin
from agent.spans.sinks import RecentSpans
from agent.status.client import Agent, AskError, Missed, NotRunningError, connected
from agent.status.server import MAX_BUFFER, MAX_CLIENTS, SocketError, StatusServer
from tests.support.daemon import eventually
from tests.support.tracing import Messages

ORIGIN = Origin.of(Resource(), InstrumentationScope(name="gospan/test"))


def spans(count: int, size: int = 0) -> list[bytes]:
    return [Span(name=f"{number}", trace_state="x" * size).SerializeToString() for number in range(count)]


@contextmanager
def listening(path: Path, recent: RecentSpans | None = None) -> Iterator[StatusServer]:
    """A server of which reports tell nothing but that they were asked for."""
    made: list[StatusServer] = []
    server = StatusServer(
        path, recent or RecentSpans(100), Messages(), lambda: made[0].answer({"asked": True})
    )
    made.append(server)
    try:
        yield server
    finally:
        server.close()


def raw(path: Path, *lines: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"".join(lines))
        answer: dict[str, Any] = json.loads(client.makefile().readline())
        return answer


def names(agent: Agent, last: int | None = None) -> list[str]:
    return ["missed" if isinstance(one, Missed) else one.span.name for one in agent.spans(last)]


def test_reports_and_spans_over_one_connection(tmp_path: Path) -> None:
    recent = RecentSpans(5)
    with listening(tmp_path / "sock", recent), connected(tmp_path / "sock") as agent:
        assert agent.report() == {"asked": True}
        assert names(agent) == []
        recent.put(ORIGIN, spans(3))
        recent.put(ORIGIN, spans(4))
        # What is not kept any more is no loss to somebody who asks for what there is.
        assert names(agent) == ["2", "0", "1", "2", "3"]
        assert names(agent, 2) == ["2", "3"]
        assert names(agent, 0) == []
        assert agent.report() == {"asked": True}


def test_a_report_that_can_not_be_made(tmp_path: Path) -> None:
    made: list[StatusServer] = []
    server = StatusServer(tmp_path / "sock", RecentSpans(1), Messages(), lambda: made[0].fail("a bug"))
    made.append(server)
    try:
        assert raw(tmp_path / "sock", b'{"want": "report"}\n') == {"error": "a bug"}
    finally:
        server.close()


def test_since_a_number_tells_what_is_gone(tmp_path: Path) -> None:
    recent = RecentSpans(5)
    with listening(tmp_path / "sock", recent):
        recent.put(ORIGIN, spans(8))
        assert raw(tmp_path / "sock", b'{"want": "spans", "since": 1}\n') == {"missed": 2}
        found = raw(tmp_path / "sock", b'{"want": "spans", "since": 6}\n')
        assert found["first"] == 6
        assert [Span.FromString(base64.b64decode(one)).name for one in found["spans"]] == ["6", "7"]
        assert raw(tmp_path / "sock", b'{"want": "spans", "since": 8}\n') == {"end": 8}


def test_following(tmp_path: Path) -> None:
    recent = RecentSpans(100)
    recent.put(ORIGIN, spans(3))
    with listening(tmp_path / "sock", recent), connected(tmp_path / "sock") as agent:
        following = agent.spans(1, follow=True)
        seen = [next(following)]
        for _ in range(2):
            recent.put(ORIGIN, spans(2))
            seen += [next(following), next(following)]
        assert [one.span.name for one in seen if not isinstance(one, Missed)] == ["2", "0", "1", "0", "1"]


def test_a_reader_that_is_too_slow_misses_spans_and_is_told_how_many(tmp_path: Path) -> None:
    recent = RecentSpans(200)
    total, each = 40_000, 100
    with listening(tmp_path / "sock", recent), connected(tmp_path / "sock") as slow:
        recent.put(ORIGIN, spans(1))
        following = slow.spans(1, follow=True)
        next(following)
        # Now it reads nothing, while another one gets everything, and nothing waits for either.
        slowest = 0.0
        for _ in range(total // each):
            began = time.monotonic()
            recent.put(ORIGIN, spans(each, size=1000))
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.001)
        assert slowest < 1
        with connected(tmp_path / "sock") as other:
            assert len(names(other)) == 200
        got = missed = 0
        while got + missed < total:
            one = next(following)
            if isinstance(one, Missed):
                missed += one.count
            else:
                got += 1
        assert got + missed == total
        assert missed > total / 2
        # What waited for it was within its limit: the buffer, a line, and what the kernel holds of a socket.
        assert got * 1300 < MAX_BUFFER + (2 << 20)


def test_a_client_that_leaves_in_the_middle(tmp_path: Path) -> None:
    recent = RecentSpans(50_000)
    recent.put(ORIGIN, spans(20_000, size=300))
    with listening(tmp_path / "sock", recent):
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "sock"))
                client.sendall(b'{"want": "spans", "follow": true}\n')
                client.recv(100)
        with connected(tmp_path / "sock") as agent:
            assert len(names(agent)) == 20_000


@pytest.mark.parametrize(
    "line",
    [b"\n", b"hello\n", b"[]\n", b"{}\n", b'{"want": "root"}\n', b'{"want": "spans", "last": "x"}\n', b"\xff\n",
     b"x" * 5000, b'{"want": "report"}\n' * 2, b"[" * 4000 + b"\n"],
)  # fmt: skip
def test_what_is_no_request_is_refused(tmp_path: Path, line: bytes) -> None:
    with listening(tmp_path / "sock"):
        assert "error" in raw(tmp_path / "sock", line)
        with connected(tmp_path / "sock") as agent:
            assert agent.report() == {"asked": True}


def test_there_are_not_too_many_clients(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with listening(path):
        others = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CLIENTS)]
        for one in others:
            one.connect(str(path))
        with pytest.raises(AskError, match="16 others are connected already"), connected(path) as agent:
            agent.report()
        others[0].close()

        def answered() -> bool:
            try:
                with connected(path) as agent:
                    return bool(agent.report())
            except AskError:
                return False

        eventually(answered, "there is room again", 10)
        for one in others[1:]:
            one.close()


def test_who_may_connect_and_who_has_the_place(tmp_path: Path) -> None:
    path = tmp_path / "run" / "sock"
    with listening(path):
        assert path.parent.stat().st_mode & 0o777 == 0o750
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(SocketError, match="another agent answers"):
            StatusServer(path, RecentSpans(1), Messages(), lambda: None)
        with connected(path) as agent:
            assert agent.report() == {"asked": True}
    assert not path.exists()
    # One that was killed has left its socket.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(NotRunningError), connected(path):
        pass
    with listening(path), connected(path) as agent:
        assert agent.report() == {"asked": True}
    path.write_text("not a socket")
    with pytest.raises(SocketError, match="can't be opened: Address already in use"):
        StatusServer(path, RecentSpans(1), Messages(), lambda: None)
    assert path.read_text() == "not a socket"


def test_nothing_is_left_open(tmp_path: Path) -> None:
    def descriptors() -> list[str]:
        return sorted(one.name for one in Path("/proc/self/fd").iterdir())

    before = descriptors()
    for _ in range(3):
        with listening(tmp_path / "sock"), connected(tmp_path / "sock") as agent:
            agent.report()
    assert descriptors() == before
