"""Rate, errors and durations by service and operation, over the last so many seconds."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from agent.status.protocol import Json
from agent.status.shown import ShownSpan

_LIMIT = 200_000
"""Spans that are looked at, at most: the newest."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a service did under one name; durations in ns."""

    service: str
    name: str
    kind: str
    spans: int
    errors: int
    per_second: float
    p50: int
    p95: int
    longest: int

    def as_json(self) -> Json:
        """Give it for scripts; docs/status.md describes it."""
        return {
            "service": self.service,
            "name": self.name,
            "kind": self.kind,
            "spans": self.spans,
            "errors": self.errors,
            "per_second": round(self.per_second, 3),
            "p50_ns": self.p50,
            "p95_ns": self.p95,
            "max_ns": self.longest,
        }


class Window:
    """Keeps what is needed of the spans that ended in the last `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._length = int(seconds * 1e9)
        self._spans: deque[tuple[int, tuple[str, str, str], int, bool]] = deque(maxlen=_LIMIT)
        self.missed = 0

    def add(self, span: ShownSpan) -> None:
        """Take a span."""
        self._spans.append((span.end, (span.service, span.name, span.kind), span.duration, span.failed))

    def operations(self, now: int, since: int) -> list[Operation]:
        """Sum up, busiest first. `now` and `since`, when looking began, are Unix times in ns."""
        first = now - self._length
        # They come nearly in the order of their ends, so that a few late ones may stay a little longer.
        while self._spans and self._spans[0][0] < first:
            self._spans.popleft()
        durations: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        errors: dict[tuple[str, str, str], int] = defaultdict(int)
        for end, key, duration, failed in self._spans:
            if end >= first:
                durations[key].append(duration)
                errors[key] += failed
        begin = max(first, min(since, self._spans[0][0] if self._spans else since))
        seconds = max((now - begin) / 1e9, 1.0)
        found = []
        for (service, name, kind), values in durations.items():
            values.sort()
            found.append(
                Operation(
                    service=service,
                    name=name,
                    kind=kind,
                    spans=len(values),
                    errors=errors[(service, name, kind)],
                    per_second=len(values) / seconds,
                    p50=quantile(values, 0.5),
                    p95=quantile(values, 0.95),
                    longest=values[-1],
                )
            )
        return sorted(found, key=lambda one: (-one.spans, one.service, one.name, one.kind))


def quantile(values: Sequence[int], share: float) -> int:
    """Give the smallest of sorted values that at least this share of them doesn't exceed (nearest rank)."""
    return values[max(0, math.ceil(share * len(values)) - 1)]
