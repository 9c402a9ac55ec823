"""What all measurements share: a collector, a directory, how often they are repeated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.collector import Collector
from bench.gospan import Agent

ROUNDS = 3
MB = 1e6


@dataclass(frozen=True, slots=True)
class Bench:
    """A directory for files, and the collector that counts."""

    workspace: Path
    collector: Collector

    def agent(self, *, trace: Path, wrapper: tuple[str, ...] = ()) -> Agent:
        """Start the agent with its default settings, tracing one executable only."""
        return Agent(
            self.workspace, trace=trace, sink="otlp", endpoint=self.collector.endpoint, wrapper=wrapper
        )
