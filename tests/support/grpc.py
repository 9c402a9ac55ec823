"""The gRPC server and client of tests/apps/grpc: building them with a release of grpc, and running them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.daemon import TIMEOUT
from tests.support.golang import ARCH, NEWEST, build
from tests.support.modules import with_versions

RELEASES = {
    "1.14.0": "1.26.11",
    "1.25.1": "1.26.11",
    "1.36.1": "1.24.13",
    "1.37.1": "1.24.13",
    "1.40.0": "1.24.13",
    "1.58.3": "1.24.13",
    "1.60.1": "1.24.13",
    "1.65.1": "1.24.13",
    "1.66.3": "1.24.13",
    "1.69.4": "1.24.13",
    "1.77.0": "1.26.11",
    "1.82.1": "1.26.11",
    "1.85.0": NEWEST,
}
"""The oldest release, the newest, and each at which a symbol, an argument or a field moved; each with a Go release."""

NEWEST_GRPC = "1.85.0"

_OLD = (1, 30)
"""Before it there is no NumStreamWorkers."""

_X_NET = "0.40.0"
"""Of golang.org/x/net, for releases of grpc from before go.mod."""


def program(release: str = NEWEST_GRPC, *, arch: str = ARCH) -> Path:
    """The program, stripped, with a release of grpc."""
    go = RELEASES[release]
    number = tuple(map(int, release.split(".")))[:2]
    versions = {"google.golang.org/grpc": release}
    if number < _OLD:
        versions["golang.org/x/net"] = _X_NET
    source = with_versions("grpc", versions, go=go)
    return build(source, go=go, arch=arch, tags=["grpc_old"] if number < _OLD else [])


@dataclass
class Server:
    """A running server."""

    pid: int
    address: str
    log: Path

    def calls(self) -> list[dict[str, Any]]:
        """What it wrote of each call it served."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def serving(path: Path, *arguments: str, log: Path) -> Iterator[Server]:
    """Run the server."""
    command = [str(path), "-listen", "127.0.0.1:0", "-log", str(log), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().split()[-1]
            yield Server(process.pid, address, log)
        finally:
            process.kill()


@dataclass
class Calls:
    """Calls that were made: the client's process, and what it wrote of each."""

    pid: int
    outcomes: list[dict[str, Any]]


def call(path: Path, server: str, wanted: Sequence[dict[str, Any]], *arguments: str) -> Calls:
    """Have a client of its own process make calls, and wait for it."""
    command = [str(path), "-target", server, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        out, err = process.communicate("\n".join(map(json.dumps, wanted)), timeout=TIMEOUT)
        assert process.returncode == 0, err
        return Calls(process.pid, [json.loads(line) for line in out.splitlines()])
