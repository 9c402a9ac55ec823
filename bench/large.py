"""Large executables that others have built: Go programs from Debian's packages, the same on every machine."""

from __future__ import annotations

import platform
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm.archive import debian
from tests.vm.cache import directory, filling

_SUITE = "bookworm"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Large:
    """A Go program of a Debian package."""

    package: str
    file: str

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{Path(self.file).name} of Debian {_SUITE}"


DOCKERD = Large("docker.io", "usr/sbin/dockerd")
"""75 MB on amd64, a position-independent executable, linked externally and stripped."""

RCLONE = Large("rclone", "usr/bin/rclone")
"""54 MB on amd64; it can serve HTTP without any configuration."""


def fetch(large: Large) -> Path:
    """Give the program, downloaded once into the cache."""
    home = directory("bench") / large.package
    if not home.exists():
        architecture = _ARCHITECTURES[platform.machine()]
        with filling(home) as empty, debian(_SUITE, architecture) as archive:
            (package,) = archive.download([large.package], into=empty)
            subprocess.run(["dpkg-deb", "-x", package, empty], check=True)
            package.unlink()
    return home / large.file


def serve_command(rclone: Path, served: Path) -> tuple[list[str], int]:
    """Give the command that has a copy of rclone serve a directory by HTTP, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    return [
        str(rclone),
        *("serve", "http", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}", str(served)),
    ], port
