"""Libraries on a guest of another architecture than the host's; run there as `python -m tests.vm.libraries`.

The host's own tests try each of them in full (tests/libraries). Here the newest release of gRPC, database/sql with
SQLite, which is inside the program, and the HTTP client have to give the spans of what they did, each with its parent;
kafka-go, which takes a broker, has tests/vm/kafka_messages.py. The programs have been built on the host (`prepare`).
"""

# ruff: noqa: T201 (a program for the terminal)

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.spans.rpc import CODES
from tests.support import calls, grpc, sql
from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.golang import ARCH, build
from tests.vm.complaints import told
from tests.vm.injection import KERNEL

_METHODS = ("Unary", "ServerStream", "ClientStream", "Both")
_PARENT = "00-0af7651916cd43dd8448eb211c80319c-{:016x}-01"

_STATEMENTS = {
    "query": ["SELECT items"],
    "queryrow": ["SELECT items"],
    "exec": ["DELETE items"],
    "prepared-exec": ["DELETE items"],
    "commit": ["BEGIN", "INSERT items", "SELECT items", "COMMIT"],
    "goroutine": ["SELECT items"],
    "missing": [""],
}
"""Ways to ask a database, and the spans of a request in each."""


def prepare(arch: str) -> None:
    """Build on the host what a guest runs."""
    build("http_calls", arch=arch)
    grpc.program(arch=arch)
    sql.program(arch=arch)


def wanted() -> bool:
    """Whether `make test-vm` does it on this kernel: on one of those that aren't amd64."""
    return os.environ["GOSPAN_VM"] == KERNEL and ARCH != "amd64"


def main() -> int:
    """As `run`; and for what the kernel complained of."""
    return 1 if run() + told() else 0


def run() -> int:
    """Try each library, print a line for each, and give how many failed."""
    failed = 0
    # Without the variables of the guest, which look like settings.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GOSPAN_")}
    with running(environ=environ) as daemon:
        for check in (http_client, grpc_calls, database_sql):
            began = time.monotonic()
            try:
                result = check(daemon)
            except AssertionError as error:
                failed += 1
                result = f"FAILED: {error}"
            print(f"  {ARCH}, {check.__name__}: {result}, {time.monotonic() - began:.1f} s", flush=True)
        daemon.stop()
    for one in (one for one in daemon.messages if one.get("level") in ("warning", "error")):
        failed += 1
        print(f"  FAILED: the agent says {one}")
    return failed


def http_client(daemon: Daemon) -> str:
    """Each request of the server has its span, and the call that its handler makes one below it."""
    path = build("http_calls")
    with calls.calling(path) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        asked = app.ask("/handler", 40, connections=4)
        spans = _spans(daemon, app.pid, lambda spans: len(calls.calls(spans)) >= len(asked), "all calls")
    served = calls.requests(spans)
    assert sorted(served) == sorted(asked), served
    made = calls.calls(spans)
    assert sorted(number for number, _ in made) == sorted(asked), made
    for number, span in made:
        assert span.parent_span_id == served[number].span_id, (number, span)
        assert attributes(span)["http.response.status_code"] == 200, span
    return f"{len(made)} calls"


def grpc_calls(daemon: Daemon) -> str:
    """One call after the other, of every kind: spans of client and server with the status that the server gave."""
    path = grpc.program()
    wanted: list[dict[str, Any]] = [
        {"method": method, "code": code, "messages": 3, "id": f"{method}-{code}"}
        | ({"send": _PARENT.format(code + 1)} if code else {})
        for method in _METHODS
        for code in (0, 5, 13, 16)
    ]
    with tempfile.TemporaryDirectory() as logs, grpc.serving(path, log=Path(logs) / "log") as server:
        eventually(lambda: daemon.traces(str(path)), "the server is traced")
        made = grpc.call(path, server.address, wanted)
        _spans(daemon, server.pid, lambda spans: len(spans) >= len(wanted), "all spans of the server")
        _spans(daemon, made.pid, lambda spans: len(spans) >= len(wanted), "all spans of the client")
        assert len(server.calls()) == len(wanted)
    for pid, kind in ((server.pid, Span.SPAN_KIND_SERVER), (made.pid, Span.SPAN_KIND_CLIENT)):
        found = _in_order(daemon.spans_of(pid))
        assert len(found) == len(wanted), found
        for one, span in zip(wanted, found, strict=True):
            has = attributes(span)
            assert span.kind == kind, span
            assert span.name == has["rpc.method"] == f"shapes.Shapes/{one['method']}", (one, has)
            assert has["rpc.response.status_code"] == CODES[one["code"]], (one, has)
            assert has["network.peer.address"] == "127.0.0.1", has
            parent = one["send"].split("-")[2] if "send" in one and kind == Span.SPAN_KIND_SERVER else ""
            assert span.parent_span_id.hex() == parent, (one, span)
    return f"{len(wanted)} calls"


def database_sql(daemon: Daemon) -> str:
    """What a handler asks SQLite has a span each, below the request's, without any value."""
    path = sql.program()
    total = 0
    with sql.asking(path, {"sqlite": "file::memory:?cache=shared"}) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        assert app.ask("setup", "sqlite")[1] == ""
        for way, names in _STATEMENTS.items():
            number, error = app.ask(way, "sqlite")
            assert bool(error) == (way == "missing"), (way, error)
            found = _queries(daemon, app.pid, number, len(names))
            if way != "missing":
                assert [span.name for span in found] == names, (way, found)
            for span in found:
                has = attributes(span)
                assert has["db.system.name"] == "sqlite", has
                assert "secret" not in has.get("db.query.text", ""), has
                assert (span.status.code == Status.STATUS_CODE_ERROR) == bool(error), (way, error, span)
                assert has.get("db.response.status_code", "") == ("1" if error else ""), has
            total += len(found)
    return f"{total} statements"


def _queries(daemon: Daemon, pid: int, number: int, wanted: int) -> list[Span]:
    """What was asked for a request, once it is all there."""

    def found(spans: list[Span]) -> list[Span]:
        request = sql.requests(spans).get(number)
        return [one for one in sql.queries(spans) if request and one.parent_span_id == request.span_id]

    spans = _spans(daemon, pid, lambda spans: len(found(spans)) >= wanted, f"{wanted} queries of {number}")
    assert len(found(spans)) == wanted, found(spans)
    return found(spans)


def _spans(daemon: Daemon, pid: int, enough: Callable[[list[Span]], bool], what: str) -> list[Span]:
    """A process's spans, once there are enough."""
    eventually(lambda: enough(daemon.spans_of(pid)), what)
    return daemon.spans_of(pid)


def _in_order(spans: list[Span]) -> list[Span]:
    return sorted(spans, key=lambda span: span.start_time_unix_nano)


if __name__ == "__main__":
    sys.exit(main())
