"""Writing trace context into gRPC calls, on a guest's kernel; run there as `python -m tests.vm.grpc_calls`.

With the oldest, a middle and the newest release: calls of all kinds, each of which has to give one trace; then a storm
of calls on several connections, whose metadata changes from call to call, and of which the program itself checks that
the server saw all that was sent and nothing else. The programs have been built on the host.
"""

# ruff: noqa: T201 (a program for the terminal)

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.daemon import Daemon, eventually
from tests.support.grpc import NEWEST_GRPC, Calls, Server, call, program, serving
from tests.vm.complaints import told
from tests.vm.injection import SPARING, contexts, tracing

RELEASES = ("1.14.0", "1.58.3", NEWEST_GRPC)
CALLS = 120
"""Of which each has to give a trace."""
_METHODS = ("Unary", "Unary", "ServerStream", "ClientStream", "Both")
_OWN = "00-0af7651916cd43dd8448eb211c80319c-{:016x}-01"


def prepare() -> None:
    """Build on the host what a guest runs."""
    for release in RELEASES:
        program(release)


def main() -> int:
    """Run all releases, or those that are named; 1 if one failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.grpc_calls", description=__doc__)
    add = parser.add_argument
    add("release", nargs="*", help=f"which of {', '.join(RELEASES)} (default: all)")
    add("--calls", type=int, default=100_000, help="of a storm (default: %(default)s)")
    add("--connections", type=int, default=100, help="of a storm (default: %(default)s)")
    add("--concurrency", type=int, default=200, help="calls of a storm at a time (default: %(default)s)")
    add("--storm", action="store_true", help="only the storm, of which few spans are kept")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the agent")
    options = parser.parse_args()
    load = ["-connections", str(options.connections), "-concurrency", str(options.concurrency)]
    settings = (*(SPARING if options.storm else ()), *options.set)
    failed = run(options.release or RELEASES, options.calls, load, settings, traces=not options.storm)
    return 1 if failed + told() else 0


def run(
    releases: Sequence[str] = RELEASES,
    calls: int = 400,
    load: Sequence[str] = ("-connections", "4", "-concurrency", "32"),
    settings: Sequence[str] = (),
    *,
    traces: bool = True,
) -> int:
    """Run these releases, print a line for each, and give how many failed."""
    failed = 0
    with tracing("propagation.grpc=yes", *settings) as daemon, tempfile.TemporaryDirectory() as logs:
        for release in releases:
            began = time.monotonic()
            try:
                path = program(release)
                with _serving(daemon, path, Path(logs) / release if traces else Path(os.devnull)) as server:
                    result = f"{_traces(daemon, path, server)}; " if traces else ""
                    result += _storm(path, server, calls, load)
            except AssertionError as error:
                failed += 1
                result = f"FAILED: {error}"
            print(f"  grpc {release}: {result}, {time.monotonic() - began:.1f} s")
        last = daemon.stop()
    counted = contexts(last)
    if not counted.get("written") or not counted.get("own_header") or counted.get("write_failed"):
        failed += 1
        print("  FAILED: nothing was written, or nothing skipped, or what should have been was not")
    return failed


@contextmanager
def _serving(daemon: Daemon, path: Path, log: Path) -> Iterator[Server]:
    with serving(path, log=log) as server:
        eventually(lambda: daemon.traces(str(path)), "the server is traced")
        yield server


def _traces(daemon: Daemon, path: Path, server: Server) -> str:
    """Make calls, and see that those that were written into are one trace with the server's part."""
    wanted: list[dict[str, Any]] = [
        {
            "id": f"call-{number}",
            "method": _METHODS[number % len(_METHODS)],
            "messages": 1 + number % 3,
            "sleep": number % 4,
            **({"send": _OWN.format(number)} if number % 7 == 0 else {}),
        }
        for number in range(CALLS)
    ]
    connections = 2
    calls = call(path, server.address, wanted, "-connections", str(connections), "-concurrency", "8")
    assert [one for one in calls.outcomes if one["code"] != "OK"] == []

    def served() -> list[Span]:
        ids = {span.span_id for span in daemon.spans_of(calls.pid)}
        return [span for span in daemon.spans_of(server.pid) if span.parent_span_id in ids]

    own = {one["id"] for one in wanted if "send" in one}
    written = [one for one in calls.outcomes if one["traceparent"] and one["id"] not in own]
    # The buffer for a header grows with the first ones of a connection.
    assert len(written) >= CALLS - len(own) - 4 * connections, calls.outcomes
    eventually(lambda: len(served()) >= len(written), "the spans of the calls that were written into")
    _check(calls, {span.span_id: span for span in daemon.spans_of(calls.pid)}, served(), wanted)
    return f"{len(written)} of {CALLS - len(own)} calls one trace"


def _check(
    calls: Calls, clients: dict[bytes, Span], served: Sequence[Span], wanted: Sequence[dict[str, Any]]
) -> None:
    own = {one["id"]: one["send"] for one in wanted if "send" in one}
    by_parent = {span.parent_span_id: span for span in served}
    assert len(by_parent) == len(served), "two calls have been given the same context"
    for outcome in calls.outcomes:
        if outcome["id"] in own:
            assert outcome["traceparent"] == own[outcome["id"]], outcome
        elif outcome["traceparent"]:
            version, trace_id, span_id, flags = outcome["traceparent"].split("-")
            client = clients[bytes.fromhex(span_id)]
            assert (version, trace_id, flags) == ("00", client.trace_id.hex(), "01"), outcome
            assert client.name == f"shapes.Shapes/{outcome['method']}", (outcome, client.name)
            server = by_parent[client.span_id]
            assert (server.trace_id, server.name) == (client.trace_id, client.name), outcome
            # It is this call's span, and no other's: they are of the same time.
            assert client.start_time_unix_nano <= outcome["end_ns"], outcome
            assert outcome["start_ns"] <= client.end_time_unix_nano, outcome


def _storm(path: Path, server: Server, calls: int, load: Sequence[str]) -> str:
    command = [str(path), "-target", server.address, "-storm", str(calls), *load]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}"
    tally = json.loads(done.stdout)
    assert tally["calls"] == calls
    assert tally["failed"] == 0, tally
    assert tally["carried"] > (calls - tally["own"]) / 2, tally
    return (
        f"storm of {calls} calls, {tally['carried']} written into, {tally['own']} with their own, none failed"
    )


if __name__ == "__main__":
    sys.exit(main())
