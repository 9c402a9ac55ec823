"""The spans of a server, compared one by one with the lines that the client wrote of its requests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.spans.http import route_of_pattern
from tests.support.http import check, expected

Line = dict[str, Any]


def key_of(line: Line) -> tuple[int, str]:
    """By what a request and its span find each other: the connection and the path."""
    return int(line["local"].rpartition(":")[2]), str(expected(line, "")["url.path"])


def by_key(spans: Sequence[Span]) -> dict[tuple[int, str], list[Span]]:
    """Spans by the connection and the path."""
    found: dict[tuple[int, str], list[Span]] = {}
    for span in spans:
        has = {one.key: one.value for one in span.attributes}
        key = (has["network.peer.port"].int_value, has["url.path"].string_value)
        found.setdefault(key, []).append(span)
    return found


def compare(
    spans: Sequence[Span], wanted: Sequence[Line], log: Path, go: str, *, others: bool = False
) -> None:
    """None lost, none doubled, none wrong: every line has its span, and, but for `others`, every span its line."""
    served = {(one["remote"], one["target"]): one for one in map(json.loads, log.read_text().splitlines())}
    assert max(Counter(span.span_id for span in spans).values()) == 1
    left = by_key(spans)
    for line in sorted(wanted, key=lambda one: one["start_ns"]):
        path = line["target"]
        entry = served.get((line["local"], path))
        # Where ServeMux redirects to the clean path, no pattern's handler has run.
        clean = "//" not in path.removeprefix("http://").partition("?")[0]
        pattern = entry["pattern"] if entry is not None and go >= "1.22" and clean else ""
        found = left.get(key_of(line), [])
        assert found, ("no span", line)
        span = min(found, key=lambda one: abs(one.start_time_unix_nano - line["start_ns"]))
        found.remove(span)
        check(line, span, route_of_pattern(pattern))
    assert others or not [span for spans_left in left.values() for span in spans_left]
