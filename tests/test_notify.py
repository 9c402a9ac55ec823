"""Messages as systemd would receive them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@gospan-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name.replace("@", "\0"))
        server.settimeout(5)
        yield server, name


def test_messages(manager: tuple[socket.socket, str]) -> None:
    server, name = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})

    def received() -> str:
        return server.recv(4096).decode()

    assert notifier.ready("tracing 2 executables")
    assert received() == "READY=1\nSTATUS=tracing 2 executables"
    assert notifier.ready()
    assert received() == "READY=1"
    assert notifier.status("two\nlines\n")
    assert received() == "STATUS=two lines"
    assert notifier.reloading()
    first, second = received().split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert int(second.partition("=")[2]) > 0
    assert notifier.stopping("sending what is left")
    assert received() == "STOPPING=1\nSTATUS=sending what is left"
    assert notifier.watchdog()
    assert received() == "WATCHDOG=1"
    assert notifier.extend_timeout(2.5)
    assert received() == "EXTEND_TIMEOUT_USEC=2500000"


def test_nobody_listens(tmp_path: Path) -> None:
    assert not Notifier.from_environment({}).ready()
    assert not Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "nothing")}).ready()
    assert not Notifier.from_environment({"NOTIFY_SOCKET": "vsock:2:1"}).ready()
    assert not Notifier.from_environment({"NOTIFY_SOCKET": "@"}).ready()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier.from_environment(environ).watchdog_interval == interval
