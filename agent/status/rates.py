"""Spans per second, over the last ten to twenty seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Note:
    at: float
    total: int
    by_process: Mapping[int, int]


class Rates:
    """Keeps the counts of the last two ticks: a rate is what has come since the older one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        start = _Note(clock(), 0, {})
        self._older, self._newer = start, start

    def note(self, total: int, by_process: Mapping[int, int]) -> None:
        """Take the counts of now."""
        self._older, self._newer = self._newer, _Note(self._clock(), total, dict(by_process))

    def total(self, now: int) -> float:
        """Give spans per second, all processes together."""
        return self._rate(now - self._older.total)

    def of(self, process: int, now: int) -> float:
        """Give spans per second of a process, by its number."""
        return self._rate(now - self._older.by_process.get(process, 0))

    def _rate(self, count: int) -> float:
        elapsed = self._clock() - self._older.at
        return round(count / elapsed, 2) if elapsed > 0 else 0.0
