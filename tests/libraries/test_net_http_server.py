"""The span of every request, compared field by field with what the client sent and what the server logged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.spans.http import route_of_pattern
from tests.support.daemon import Daemon, eventually, running
from tests.support.golang import VERSIONS, build
from tests.support.http import check, expects_span, send, serving

pytestmark = pytest.mark.kernel

MODES = ("http1", "http1.0", "close", "h2", "h2c")


def compare(daemon: Daemon, pid: int, lines: list[dict[str, Any]], log: Path, go: str) -> None:
    """None lost, none doubled, none wrong: every line has its span, and every span its line."""
    wanted = [line for line in lines if expects_span(line)]
    served = {(one["remote"], one["target"]): one for one in map(json.loads, log.read_text().splitlines())}
    eventually(lambda: len(daemon.spans_of(pid)) >= len(wanted), f"{len(wanted)} spans", timeout=20)
    daemon.stop()
    spans = daemon.spans_of(pid)
    assert max(Counter(span.span_id for span in spans).values()) == 1
    by_request: dict[tuple[int, str], list[Any]] = {}
    for span in spans:
        has = {one.key: one.value for one in span.attributes}
        key = (has["network.peer.port"].int_value, has["url.path"].string_value)
        by_request.setdefault(key, []).append(span)
    for line in sorted(wanted, key=lambda one: one["start_ns"]):
        path = line["target"]
        entry = served.get((line["local"], path))
        # Where ServeMux redirects to the clean path, no pattern's handler has run.
        routed = entry is not None and go >= "1.22" and "//" not in path.removeprefix("http://").partition("?")[0]
        pattern = entry["pattern"] if entry is not None and routed else ""
        key = (int(line["local"].rpartition(":")[2]), _path_of(line))
        found = by_request[key]
        span = min(found, key=lambda one: abs(one.start_time_unix_nano - line["start_ns"]))
        found.remove(span)
        check(line, span, route_of_pattern(pattern))
    assert not [span for left in by_request.values() for span in left]


def _path_of(line: dict[str, Any]) -> str:
    from tests.support.http import expected

    return str(expected(line, "")["url.path"])


@pytest.mark.parametrize("go", VERSIONS)
def test_every_request_of_every_kind(go: str, tmp_path: Path) -> None:
    server_file = build("http_server", go=go)
    log = tmp_path / "log"
    with running() as daemon, serving(server_file, log=log) as server:
        eventually(lambda: daemon.traces(str(server_file)), "the server is traced")
        lines = [line for mode in MODES for line in send(server, mode, "-faults", "0.05", requests=400)]
        compare(daemon, server.pid, lines, log, go)
