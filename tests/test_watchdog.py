"""What systemd hears of a daemon that has many executables to attach to: it is ready, and it is alive all the time."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, eventually, running
from tests.support.golang import build
from tests.support.http import Server, serving

pytestmark = pytest.mark.kernel

PROGRAMS = 24
WATCHDOG = 0.5
"""Seconds that systemd would allow between two signs of life, less than all programs take together."""


class Manager:
    """Stands in for systemd: the messages that came, with their times."""

    def __init__(self, listener: socket.socket) -> None:
        self.messages: list[tuple[float, str]] = []
        self._listener = listener
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while message := self._listener.recv(4096):
            self.messages.append((time.monotonic(), message.decode()))

    def times(self, line: str) -> list[float]:
        return [when for when, message in self.messages if line in message.splitlines()]


@contextmanager
def managing(tmp_path: Path) -> Iterator[tuple[Manager, dict[str, str]]]:
    """Listen where a daemon with this environment tells of itself."""
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        environ = os.environ | {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
        yield Manager(listener), environ
        listener.shutdown(socket.SHUT_RDWR)


def test_looking_at_many_programs_starves_neither_watchdog_nor_spans(tmp_path: Path) -> None:
    programs = [tmp_path / f"program-{number}" for number in range(PROGRAMS)]
    with ExitStack() as stack:
        manager, environ = stack.enter_context(managing(tmp_path))
        first = tmp_path / "first"
        shutil.copy(build("http_server"), first)
        server = stack.enter_context(serving(first))
        for program in programs:
            shutil.copy(first, program)
            stack.callback(subprocess.Popen.kill, subprocess.Popen([program], stdout=subprocess.DEVNULL))
        config = tmp_path / "config.toml"
        config.write_text(
            f'[discovery]\ninclude = [{{ exe = "{tmp_path}/*" }}]\nscan_interval = "1s"\n'
            '[export]\nendpoint = "http://127.0.0.1:PORT"\n[kernel]\nattach = "perf"\n'
        )
        daemon = stack.enter_context(running(config=config, environ=environ, ready=False))
        eventually(lambda: asked_until(daemon, server), "all programs are found")
        looked = time.monotonic()
        assert all(daemon.traces(str(program)) for program in (first, *programs))

        [ready] = manager.times("READY=1")
        fed = [when for when in manager.times("WATCHDOG=1") if when < looked]
        gaps = [later - earlier for earlier, later in pairwise([ready, *fed, looked])]
        # How long a program takes depends on the machine: between two signs of life there are never many of them.
        assert max(gaps) < max(2 * WATCHDOG, (looked - ready) / 2), gaps
        assert daemon.collector.call_times[0] < looked, (
            "the first program's spans don't wait for the last program"
        )


def asked_until(daemon: Daemon, server: Server) -> bool:
    """Make a span, if the program is traced by now; whether all programs are."""
    urllib.request.urlopen(f"http://127.0.0.1:{server.port('http1')}/", timeout=30).read()
    return daemon.said("gospan is tracing")
