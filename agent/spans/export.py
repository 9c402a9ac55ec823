"""Sending spans: one thread with a bounded queue, that tries again as OTLP says, and counts what it drops."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.config import Export
from agent.config.destination import request_url
from agent.log import Event, StateLog
from agent.spans.delivery import Accepted, Backoff, Duration, Durations, Failed, Transport
from agent.spans.otlp import Origin
from agent.spans.queue import Batch, SpanQueue

QUEUE_FULL = "queue_full"
REJECTED = "rejected"
NOT_RETRYABLE = "not_retryable"
GAVE_UP = "gave_up"
SHUTDOWN = "shutdown"

# How long after the last loss the next one is news again, in seconds.
_LOSS_REMEMBERED = 60.0
# How long a server may tell us to wait, in seconds.
_LONGEST_DELAY = 300.0
# The shortest wait between attempts that a shutdown has cut short, in seconds.
_LAST_DELAY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportStatus:
    """The exporter's counts since the start; spans throughout.

    Every span put is in exactly one of `sent`, `held` and the values of `dropped` (in two for a moment, while
    a batch ends). `failing_since` is a Unix time, or None while all is well; `last_error` stays after a
    recovery.
    """

    destination: str
    sent: int
    held: int
    dropped: Mapping[str, int]
    requests: int
    retries: int
    held_bytes: int = 0
    waiting: int = 0
    capacity: int = 0
    protocol: str = ""
    server: Mapping[str, str | int] = field(default_factory=dict)
    durations: Mapping[str, Duration] = field(default_factory=dict)
    failing_since: float | None = None
    last_error: str | None = None


@dataclass(slots=True)
class _Counts:
    """What the worker counts."""

    sent: int = 0
    requests: int = 0
    retries: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failing_since: float | None = None
    last_error: str | None = None
    last_rejection: str | None = None


class Exporter:
    """Takes encoded spans from one thread and sends them from another.

    `open_transport` is called in the worker's thread, so that the start doesn't wait for gRPC to be imported.
    Nothing here blocks or raises in the producer's thread.
    """

    def __init__(
        self,
        settings: Export,
        open_transport: Callable[[Export], Transport],
        *,
        log: StateLog | None = None,
        backoff: Backoff | None = None,
        destination: str | None = None,
    ) -> None:
        self._settings = settings
        self._open_transport = open_transport
        self.durations = Durations()
        self._log = log or StateLog()
        self._backoff = backoff or Backoff()
        self._fixed_destination = destination
        self._destination = destination or settings.endpoint
        self._queue = SpanQueue(
            capacity=settings.queue_size,
            capacity_bytes=settings.queue_bytes,
            batch_size=settings.batch_size,
            delay=settings.schedule_delay,
        )
        self._counts = _Counts()
        self._dropped_before = 0
        self._loss_logged: Counter[str] = Counter()
        self._loss_at = 0.0
        self._transport: Transport | None = None
        self._stopping = threading.Event()
        self._reconfigured = threading.Event()
        self._woken = threading.Event()
        self._deadline = float("inf")
        self._log.quietly("export", self._destination, "ok")
        self._worker = threading.Thread(target=self._run, name="gospan-export", daemon=True)
        self._worker.start()

    # --- the producer's side ---

    def put(self, origin: Origin, spans: Sequence[bytes]) -> None:
        """Hand over the encoded spans of one process and library; the sequence must not change afterwards."""
        self._queue.put(origin, spans)

    def flush(self, timeout: float) -> bool:
        """Send what was put until now; say whether that ended within `timeout` seconds."""
        return self._queue.flush(timeout)

    def reconfigure(self, settings: Export) -> None:
        """Send by other settings from the next request on. What waits is kept, and goes by the new ones too."""
        self._settings = settings
        self._destination = self._fixed_destination or settings.endpoint
        self._queue.configure(
            capacity=settings.queue_size,
            capacity_bytes=settings.queue_bytes,
            batch_size=settings.batch_size,
            delay=settings.schedule_delay,
        )
        self._reconfigured.set()
        self._woken.set()

    def shutdown(self, timeout: float) -> bool:
        """Send what is left for at most `timeout` seconds, and end; say whether nothing had to be dropped.

        A request on its way at the deadline is given up and counted as dropped, although the collector may
        have it.
        """
        self._deadline = time.monotonic() + timeout
        self._stopping.set()
        self._woken.set()
        self._queue.close()
        self._worker.join(timeout)
        if self._worker.is_alive():
            transport = self._transport
            if transport is not None:
                transport.close()
            self._worker.join(1.0)
        self._drop(SHUTDOWN, self._queue.abandon())
        self._note_losses()
        return self.status().dropped.get(SHUTDOWN, 0) == 0

    def status(self) -> ExportStatus:
        """Give the counts."""
        counts = self._counts
        dropped = Counter(counts.dropped)
        dropped[QUEUE_FULL] += self._queue.overflowed
        dropped[SHUTDOWN] += self._queue.late
        return ExportStatus(
            destination=self._destination,
            sent=counts.sent,
            held=self._queue.held,
            held_bytes=self._queue.held_bytes,
            waiting=self._queue.waiting,
            capacity=self._settings.queue_size,
            protocol="" if self._fixed_destination else self._settings.protocol.value,
            server=self._server(),
            durations=self.durations.by_code(),
            dropped={reason: count for reason, count in sorted(dropped.items()) if count},
            requests=counts.requests,
            retries=counts.retries,
            failing_since=counts.failing_since,
            last_error=counts.last_error,
        )

    def _server(self) -> dict[str, str | int]:
        """Give the collector's address and port, as attributes."""
        endpoint = self._settings.endpoint
        if self._fixed_destination or endpoint.startswith("unix:"):
            return {}
        host, port, _ = request_url(self._settings, "")
        return {"server.address": host, "server.port": port}

    # --- the worker's side ---

    def _run(self) -> None:
        self._connect()
        while self._transport is not None and (batch := self._queue.take()) is not None:
            try:
                self._deliver(batch)
            except Exception as error:  # noqa: BLE001 -- a mistake of ours must not end all exporting
                self._failing(Failed(code=type(error).__name__, message=str(error), retryable=False))
                self._drop(f"internal:{type(error).__name__}", batch.spans)
            self._queue.done(batch)
            self._note_losses()
        if self._transport is not None:
            self._transport.close()

    def _current(self) -> Transport | None:
        """Give the transport of the settings in force."""
        if self._reconfigured.is_set():
            if self._transport is not None:
                self._transport.close()
            return self._connect()
        return self._transport

    def _connect(self) -> Transport | None:
        """Open the transport; a certificate may be unreadable for now, so this is tried again as well."""
        attempt = 0
        while True:
            self._reconfigured.clear()
            self._woken.clear()
            if self._stopping.is_set():
                self._woken.set()
            try:
                self._transport = self._open_transport(self._settings)
            except (OSError, ValueError) as error:
                self._failing(Failed(code="CONFIGURATION", message=str(error), retryable=True))
                usual = self._backoff.delay(attempt)
                if not self._pause(usual, usual):
                    self._transport = None
                    return None
                attempt += 1
            else:
                return self._transport

    def _deliver(self, batch: Batch) -> None:
        """Send a batch until it is taken or has to be dropped."""
        began = time.monotonic()
        attempt = 0
        while True:
            transport = self._current()
            timeout = min(self._settings.timeout, self._deadline - time.monotonic())
            if transport is None or timeout <= 0:
                return self._drop(SHUTDOWN, batch.spans)
            self._counts.requests += 1
            sent_at = time.monotonic()
            outcome = transport.send(batch.chunks, timeout)
            self.durations.add(
                time.monotonic() - sent_at, "" if isinstance(outcome, Accepted) else outcome.code
            )
            if isinstance(outcome, Accepted):
                return self._accepted(batch, outcome)
            self._failing(outcome)
            self._note_losses()
            if not outcome.retryable:
                return self._drop(f"{NOT_RETRYABLE}:{outcome.code}", batch.spans)
            # What the server asks for is a minimum; none at all would have us ask it again and again.
            usual = self._backoff.delay(attempt)
            delay = max(usual, min(outcome.delay or 0.0, _LONGEST_DELAY))
            limit = self._settings.give_up_after
            if limit and time.monotonic() + delay - began > limit:
                return self._drop(GAVE_UP, batch.spans)
            if not self._pause(delay, usual):
                return self._drop(SHUTDOWN, batch.spans)
            if outcome.reconnect and not self._reconfigured.is_set():
                transport.reconnect()
            self._counts.retries += 1
            attempt += 1

    def _pause(self, delay: float, usual: float) -> bool:
        """Wait before the next attempt; False when there is no time left for one.

        The beginning of a shutdown ends the wait: whatever can still be sent has to be sent now. So do other settings.
        Once it has begun, what the server asks for counts no more, nor all of the `usual` delay where that would leave
        no time for an attempt.
        """
        if not self._stopping.is_set():
            self._woken.wait(delay)
            return True
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            return False
        time.sleep(min(usual, max(remaining / 2, _LAST_DELAY), remaining))
        return time.monotonic() < self._deadline

    def _accepted(self, batch: Batch, outcome: Accepted) -> None:
        counts = self._counts
        # A server that claims to have rejected more than it got doesn't make our sums wrong.
        rejected = max(0, min(outcome.rejected, batch.spans))
        counts.sent += batch.spans - rejected
        if outcome.message:
            counts.last_rejection = outcome.message
        if rejected:
            counts.last_error = f"rejected: {outcome.message}" if outcome.message else "rejected"
            self._drop(REJECTED, rejected)
        began, counts.failing_since = counts.failing_since, None
        if began is not None:
            lost = sum(self.status().dropped.values()) - self._dropped_before
            meanwhile = f"; {lost} spans were dropped meanwhile" if lost else "; none was dropped"
            text = f"Spans reach {self._destination} again, after {time.time() - began:.0f} s{meanwhile}"
            self._log.change("export", self._destination, "ok", Event.EXPORT_RECOVERED, text)

    def _failing(self, failure: Failed) -> None:
        counts = self._counts
        if failure.code == "CANCELLED" and self._stopping.is_set():
            return  # by us
        counts.last_error = str(failure)
        if counts.failing_since is None:
            counts.failing_since = time.time()
            self._dropped_before = sum(self.status().dropped.values())
        then = "kept and tried again" if failure.retryable else "dropped: trying again wouldn't help"
        text = f"Spans don't reach {self._destination} ({failure}); they are {then}"
        state = f"failing: {failure.code}"
        self._log.change("export", self._destination, state, Event.EXPORT_FAILING, text, code=failure.code)

    def _drop(self, reason: str, count: int) -> None:
        self._counts.dropped[reason] += count

    def _note_losses(self) -> None:
        """Write about losses when they begin, and again when they begin anew after a quiet minute.

        Those of a shutdown are written once, at its end.
        """
        if self._stopping.is_set() and self._worker.is_alive():
            return
        dropped = Counter(self.status().dropped)
        new = dropped - self._loss_logged
        now = time.monotonic()
        if not new:
            if self._loss_at and now - self._loss_at > _LOSS_REMEMBERED:
                self._loss_at = 0.0
                self._log.quietly("losses", self._destination, "none")
            return
        self._loss_logged, self._loss_at = dropped, now
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(new.items()))
        text = f"Spans were dropped: {reasons}"
        if new[REJECTED] and self._counts.last_rejection:
            text += f" ({self._counts.last_rejection})"
        self._log.change("losses", self._destination, tuple(sorted(new)), Event.EVENTS_LOST, text)
