"""Telling systemd how the daemon is: ready, a sentence of status, reloads, the watchdog (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notifier:
    """Sends to the service manager's socket, or nowhere if there is none.

    A lost message is no reason to stop: every method says whether it was handed over, and raises nothing.
    `watchdog_interval` is in seconds: how often `watchdog()` is due, half of what systemd allows; None if it
    doesn't watch this process.
    """

    address: str | bytes | None = None
    watchdog_interval: float | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        return cls(_address(environ.get("NOTIFY_SOCKET", "")), _watchdog_interval(environ))

    def send(self, *lines: str) -> bool:
        """Send assignments such as `STATUS=...` in one message."""
        if self.address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
                # A manager too busy to read is waited for, but never for long: the watchdog is pinged from
                # the loop that drains events.
                client.settimeout(1.0)
                client.sendto("\n".join(lines).encode("utf-8", "replace"), self.address)
        except OSError:
            return False
        return True

    def ready(self, status: str = "") -> bool:
        """Say that the start, or a reload, is complete."""
        return self.send("READY=1", *_status(status))

    def status(self, sentence: str) -> bool:
        """Show a sentence in `systemctl status`."""
        return self.send(*_status(sentence))

    def reloading(self) -> bool:
        """Say that the configuration is being read again; `ready()` ends it.

        MONOTONIC_USEC is what lets Type=notify-reload tell this reload from an earlier one (systemd 253).
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self.send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, status: str = "") -> bool:
        """Say that the daemon is on its way out."""
        return self.send("STOPPING=1", *_status(status))

    def watchdog(self) -> bool:
        """Say that the daemon is alive."""
        return self.send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for this much more time from now to start, reload or stop."""
        return self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def _status(sentence: str) -> list[str]:
    # A newline would begin another assignment.
    return [f"STATUS={' '.join(sentence.split())}"] if sentence else []


def _address(name: str) -> str | bytes | None:
    """Turn NOTIFY_SOCKET into an address: a path, or with @ a name in the abstract namespace."""
    if name.startswith("/"):
        return name
    if name.startswith("@") and len(name) > 1:
        return b"\0" + os.fsencode(name[1:])
    return None  # unset, or vsock: of a whole virtual machine, not of a service


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Give half of WATCHDOG_USEC in seconds, unless it is for another process (sd_watchdog_enabled(3))."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 2_000_000
