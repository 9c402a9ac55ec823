"""What `gospan offsets build` has read so far, so that it goes on where it was interrupted.

A build's layouts are kept whole, not only the fields that are wanted today. A program's sources are part of the path:
when they change, everything is built again.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.offsets.layouts import Layouts
from agent.offsets.programs import Program


def default_directory() -> Path:
    """Where it is kept unless the user says otherwise (XDG Base Directory Specification)."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "gospan" / "offsets"


@dataclass(frozen=True, slots=True)
class State:
    """Layouts and failures, by program, version, architecture and the Go release that built it."""

    directory: Path

    def layouts(self, program: Program, version: str, arch: str, go: str) -> Layouts | None:
        """What was read from a build; None if it wasn't built, or if what is left of it is damaged and has to go."""
        path = self._path(program, version, arch, go, "json.gz")
        try:
            return Layouts.load(path.read_bytes())
        except OSError:
            return None
        except ValueError:
            path.unlink(missing_ok=True)
            return None

    def has(self, program: Program, version: str, arch: str, go: str) -> bool:
        """Whether the build is there, or known to be impossible."""
        return any(
            self._path(program, version, arch, go, kind).exists() for kind in ("json.gz", "unavailable")
        )

    def reason(self, program: Program, version: str, arch: str, go: str) -> str:
        """Why a version can't be built; empty if nothing is known of that."""
        try:
            return self._path(program, version, arch, go, "unavailable").read_text()
        except OSError:
            return ""

    def keep(self, program: Program, version: str, arch: str, go: str, layouts: Layouts) -> None:
        """Keep what was read from a build."""
        _replace(self._path(program, version, arch, go, "json.gz"), layouts.dump())

    def keep_reason(self, program: Program, version: str, arch: str, go: str, reason: str) -> None:
        """Keep that a version can't be built, and why."""
        _replace(self._path(program, version, arch, go, "unavailable"), reason.encode())

    def forget_reasons(self) -> None:
        """Try everything again that could not be built."""
        for path in self.directory.glob("*/*.unavailable"):
            path.unlink()

    def _path(self, program: Program, version: str, arch: str, go: str, kind: str) -> Path:
        return (
            self.directory / f"{program.directory.name}-{program.digest}" / f"{version}-{arch}-go{go}.{kind}"
        )


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).replace(path)
