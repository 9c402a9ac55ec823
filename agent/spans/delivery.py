"""What can become of a batch, and the policy that follows from it."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from agent.spans.otlp import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The receiver took the batch, all but `rejected` spans of it, for the reason in `message`."""

    rejected: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The batch wasn't taken.

    `code` is gRPC's name for it, `delay` the seconds the server asks us to wait, `reconnect` whether the
    connection is in doubt.
    """

    code: str
    message: str
    retryable: bool
    delay: float | None = None
    reconnect: bool = False

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


Outcome = Accepted | Failed


BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds; OpenTelemetry's advice for durations of requests ("HTTP metrics", ExplicitBucketBoundaries)."""


@dataclass(slots=True)
class Duration:
    """How long requests took, as a histogram: a count for each of BOUNDS, each up to and with it, and the rest."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0


class Durations:
    """How long requests took, by the code of their failure, "" for those that were accepted.

    Written by one thread; another may read.
    """

    def __init__(self) -> None:
        self._by_code: dict[str, Duration] = {}

    def add(self, seconds: float, code: str) -> None:
        """Count a request."""
        duration = self._by_code.get(code)
        if duration is None:
            duration = self._by_code.setdefault(code, Duration())
        duration.counts[bisect_left(BOUNDS, seconds)] += 1
        duration.total += seconds

    def by_code(self) -> dict[str, Duration]:
        """Give what was counted until now."""
        return {code: Duration(list(one.counts), one.total) for code, one in list(self._by_code.items())}


class Transport(Protocol):
    """Something that takes batches. Used by one thread, except for `close`."""

    def send(self, chunks: Iterable[Chunk], timeout: float) -> Outcome:
        """Send one batch and wait for what becomes of it, `timeout` seconds at most. Raises nothing."""

    def reconnect(self) -> None:
        """Give up the connection and make another."""

    def close(self) -> None:
        """End, and whatever is on its way with it; from any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with jitter, as OTLP asks for ("OTLP/gRPC Throttling").

    Half of each delay is fixed and half is random: agents of many machines that lost the same collector don't
    return together, and none returns at once. Delays are in seconds.
    """

    first: float = 1.0
    factor: float = 2.0
    limit: float = 30.0

    def delay(self, attempt: int) -> float:
        """Give the delay after the attempt of this number, from 0."""
        # The exponent is bounded: 2.0 ** 1024 is an OverflowError after a night's outage.
        full = min(self.limit, self.first * self.factor ** min(attempt, 32))
        return full * random.uniform(0.5, 1.0)  # noqa: S311 -- no secret
