"""A bounded queue of spans between the thread that makes them and the one that sends them.

It holds chunks, the spans of one process and library from one drain of the ring, so that the producer pays
for a lock and an append once a chunk, not once a span. Spans are encoded already: 0.4 KiB instead of the 2.6
KiB of a message, which is what lets a queue of 32768 live in 15 MB.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.spans.otlp import Chunk, Origin


@dataclass(slots=True)
class Batch:
    """What goes out in one request."""

    chunks: list[Chunk] = field(default_factory=list)
    spans: int = 0
    size: int = 0


class SpanQueue:
    """Counts spans from `put` until `done`: those that wait and those of the batch on its way.

    When it is full the newest spans are dropped, not the oldest. What waits was there first and belongs to
    traces whose beginning may have been sent already; the producer never touches what the worker is about to
    take; and the first spans of an outage tell more than the last.
    """

    def __init__(
        self,
        *,
        capacity: int,
        batch_size: int,
        delay: float,
        capacity_bytes: int = 1 << 40,
        batch_bytes: int = 3 << 20,
    ) -> None:
        """Make a queue for `capacity` spans of `capacity_bytes` that gives them out `batch_size` at a time.

        A batch that isn't full is given `delay` seconds after its first span arrived. `batch_bytes` keeps a
        request below the 4 MiB that gRPC servers accept unless told otherwise. `overflowed` and `late` count
        the spans that weren't taken, because the queue was full or closed.
        """
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._delay = delay
        self._chunks: deque[Chunk] = deque()
        self._waiting = 0
        self._held = 0
        self._held_bytes = 0
        self._oldest = 0.0
        self._put = 0
        self._done = 0
        self._flush_to = 0
        self._closed = False
        self.overflowed = 0
        self.late = 0
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._finished = threading.Condition(lock)

    def configure(self, *, capacity: int, capacity_bytes: int, batch_size: int, delay: float) -> None:
        """Change the limits. What waits already stays, even where it is more than the new capacity."""
        with self._changed:
            self._capacity, self._batch_size, self._delay = capacity, batch_size, delay
            self._capacity_bytes = capacity_bytes
            self._changed.notify()

    def put(self, origin: Origin, spans: Sequence[bytes]) -> int:
        """Queue encoded spans, as many as there is room for, and give their number. Never waits."""
        with self._changed:
            if self._closed:
                self.late += len(spans)
                return 0
            room = max(0, self._capacity - self._held)
            if len(spans) > room:
                self.overflowed += len(spans) - room
                spans = spans[:room]
            size = sum(map(len, spans))
            if size > self._capacity_bytes - self._held_bytes:
                given = len(spans)
                spans, size = _first(spans, self._capacity_bytes - self._held_bytes)
                self.overflowed += given - len(spans)
            count = len(spans)
            if count == 0:
                return 0
            self._held_bytes += size
            self._chunks.append((origin, spans))
            before = self._waiting
            self._waiting += count
            self._held += count
            self._put += count
            if before == 0:
                self._oldest = time.monotonic()
            # The worker sleeps until there is anything, and then until there is enough.
            if before == 0 or before < self._batch_size <= self._waiting:
                self._changed.notify()
            return count

    def take(self) -> Batch | None:
        """Wait for a batch; None when the queue is closed and empty. `done` must follow."""
        with self._changed:
            while not self._due():
                if self._closed and not self._waiting:
                    return None
                self._changed.wait(self._oldest + self._delay - time.monotonic() if self._waiting else None)
            return self._cut()

    def _due(self) -> bool:
        if not self._waiting:
            return False
        return (
            self._waiting >= self._batch_size
            or self._closed
            or self._done < self._flush_to
            or time.monotonic() - self._oldest >= self._delay
        )

    def _cut(self) -> Batch:
        batch = Batch()
        room = self._batch_bytes
        while self._chunks and batch.spans < self._batch_size:
            origin, spans = self._chunks.popleft()
            fits = min(len(spans), self._batch_size - batch.spans)
            size = sum(map(len, spans[:fits] if fits < len(spans) else spans))
            while size > room and fits > 0:
                fits -= 1
                size -= len(spans[fits])
            if fits == 0 and not batch.spans:
                fits = 1  # larger than a request should be, all by itself: let the collector decide
            if fits < len(spans):
                self._chunks.appendleft((origin, spans[fits:]))
            if fits == 0:
                break
            batch.chunks.append((origin, spans[:fits] if fits < len(spans) else spans))
            batch.spans += fits
            batch.size += size
            room -= size
        self._waiting -= batch.spans
        # What is left arrived no earlier than this; a little later than exact costs at most one more delay.
        self._oldest = time.monotonic()
        return batch

    def done(self, batch: Batch) -> None:
        """Give back the room of a batch that was sent or given up."""
        with self._changed:
            self._held -= batch.spans
            self._held_bytes -= batch.size
            self._done += batch.spans
            self._finished.notify_all()

    def flush(self, timeout: float) -> bool:
        """Send what was put until now without delay, and wait for it; say whether it was done in time."""
        with self._changed:
            target = self._flush_to = self._put
            self._changed.notify()
            return self._finished.wait_for(lambda: self._done >= target, timeout)

    def close(self) -> None:
        """Take no more spans; what is queued is given out without delay."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def abandon(self) -> int:
        """Empty a closed queue and give the number of spans that were waiting."""
        with self._changed:
            count, self._waiting = self._waiting, 0
            self._held_bytes -= sum(len(span) for _, spans in self._chunks for span in spans)
            self._chunks.clear()
            self._held -= count
            self._done += count
            self._changed.notify()
            self._finished.notify_all()
            return count

    @property
    def held(self) -> int:
        """The number of spans that wait or are on their way."""
        return self._held

    @property
    def waiting(self) -> int:
        """The number of spans that wait."""
        return self._waiting

    @property
    def held_bytes(self) -> int:
        """What those spans take, encoded."""
        return self._held_bytes


def _first(spans: Sequence[bytes], room: int) -> tuple[Sequence[bytes], int]:
    """Give as many of the first spans as fit into `room` bytes, and their size."""
    size = 0
    for count, span in enumerate(spans):
        if size + len(span) > room:
            return spans[:count], size
        size += len(span)
    return spans, size
