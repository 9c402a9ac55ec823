"""The counting receiver as a process, and waiting for what it counts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from bench.gospan import ROOT, Agent
from bench.receiver import Counts, read_counts
from bench.target import BenchError

_PATIENCE = 15.0


class Collector:
    """Receives OTLP/gRPC in another process, and knows how many spans came."""

    def __init__(self, workspace: Path) -> None:
        self._file = workspace / "received"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.receiver", str(self._file)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        self.endpoint = f"http://127.0.0.1:{int(line)}"

    def counts(self) -> Counts:
        """Give what has come so far."""
        return read_counts(self._file)

    @property
    def spans(self) -> int:
        """How many spans have come so far."""
        return self.counts().spans

    def wait_for(self, spans: int, *, quiet: float = 2.5) -> int:
        """Wait until so many spans have come, or none for `quiet` seconds; give how many have."""
        seen, since = self.spans, time.monotonic()
        while seen < spans and time.monotonic() - since < quiet:
            time.sleep(0.02)
            if (now := self.spans) != seen:
                seen, since = now, time.monotonic()
        return seen

    def first_span(self, agent: Agent, knock: Callable[[], None], *, every: float = 0.005) -> float:
        """Knock at the target until a span comes; give the time of arrival (time.monotonic).

        Afterwards all spans of the knocks have come.
        """
        before, began, knocks = self.spans, time.monotonic(), 0
        while self.spans == before:
            if not agent.running:
                raise BenchError(f"the agent has ended:\n{agent.complaint()}")
            if time.monotonic() - began > _PATIENCE:
                raise BenchError(f"no span after {_PATIENCE:.0f} s. The agent says:\n{agent.complaint()}")
            knock()
            knocks += 1
            time.sleep(every)
        arrived = time.monotonic()
        self.wait_for(before + knocks)
        return arrived

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
