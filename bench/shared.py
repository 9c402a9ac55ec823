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
    """A directory for files, the collector that counts, and the executable that is traced."""

    workspace: Path
    collector: Collector
    server: Path

    def agent(self, *, wrapper: tuple[str, ...] = ()) -> Agent:
        """Start the agent with its default settings, tracing that executable only."""
        return Agent(
            self.workspace, trace=self.server, sink="otlp", endpoint=self.collector.endpoint, wrapper=wrapper
        )
