"""Spans that were lost before they reached the exporter, by reason."""

from __future__ import annotations

from agent.kernel.programs import Programs
from agent.log import Event, Logger, emit
from agent.spans.pipeline import SpanCounts


class Losses:
    """Counts them, and tells of them when there are more."""

    def __init__(self, programs: Programs, counts: SpanCounts, log: Logger) -> None:
        self._programs = programs
        self._counts = counts
        self._log = log
        self._told: dict[str, int] = {}

    def by_reason(self) -> dict[str, int]:
        """Count what was lost since the start; reasons for which nothing was are left out."""
        counters = self._programs.counters()
        found = {
            "buffer_full": counters["records_lost"] + self._programs.reader.lost,
            "evicted": counters["spans_evicted"],
            "abandoned": counters["spans_abandoned"],
            "too_deep": counters["spans_too_deep"],
            "unreadable": self._counts.unreadable,
            "process_unknown": self._counts.orphaned,
        }
        return {reason: count for reason, count in found.items() if count}

    def tell(self) -> None:
        """Say what was lost since the last time."""
        losses = self.by_reason()
        news = {reason: count for reason, count in losses.items() if count > self._told.get(reason, 0)}
        if news:
            emit(
                self._log,
                Event.EVENTS_LOST,
                "spans were lost",
                **{f"lost_{name}": n for name, n in news.items()},
            )
        self._told = losses
