"""What the daemon's loop does at intervals."""

from __future__ import annotations

import time

from agent.notify import Notifier


class Timer:
    """Says when an interval is over; a late one starts anew from then."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = time.monotonic() + interval

    def due(self) -> bool:
        """Whether the interval is over."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._interval
        return True


class Watchdog:
    """Tells systemd, when that is due, that the loop is alive."""

    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier
        self._timer = Timer(notifier.watchdog_interval or float("inf"))

    def feed(self) -> None:
        """Be called from wherever work is done: a loop that hangs doesn't get here."""
        if self._timer.due():
            self.notifier.watchdog()
