"""Uprobe events made by hand in tracefs, for kernels or privileges that allow no other way.

Format: Documentation/trace/uprobetracer.rst. Events live until they are removed, also when their maker dies;
so their group says which process made them, and what a dead one left is removed at the next start.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import re
from pathlib import Path

from agent.kernel.errors import KernelError

_EVENT = re.compile(r"^p:(gospan_(\d+)_(\d+)/\S+) ", re.MULTILINE)
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True, slots=True)
class Tracefs:
    """A mounted tracefs by its path."""

    path: Path

    def add_uprobe(self, executable: str, offset: int) -> str:
        """Make an event for a file offset and give its name, "group/event"; raise KernelError.

        `executable` is a path without blanks, as this process sees it.
        """
        name = f"{_group(os.getpid())}/at_{next(_numbers)}"
        self._write(f"p:{name} {executable}:{offset:#x}", f"make an event for {executable} at {offset:#x}")
        return name

    def number(self, name: str) -> int:
        """Give the number by which perf_event_open knows an event."""
        path = self.path / "events" / name / "id"
        try:
            return int(path.read_text())
        except (OSError, ValueError) as error:
            raise KernelError(f"cannot read {path}: {error}") from None

    def remove(self, name: str) -> None:
        """Remove an event that nothing is attached to; raise KernelError."""
        self._write(f"-:{name}", f"remove the event {name}")

    def remove_stale(self) -> int:
        """Remove what dead agents have left, and give how many events that were; call it at start."""
        removed = 0
        try:
            text = (self.path / "uprobe_events").read_text()
        except OSError as error:
            raise KernelError(f"cannot read {self.path}/uprobe_events", errno=error.errno or 0) from None
        for name, pid, start in _EVENT.findall(text):
            if start_time(int(pid)) != int(start):
                self.remove(name)
                removed += 1
        return removed

    def _write(self, line: str, action: str) -> None:
        try:
            fd = os.open(self.path / "uprobe_events", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(fd, line.encode() + b"\n")
            finally:
                os.close(fd)
        except OSError as error:
            hint = ""
            if error.errno in (errno.EACCES, errno.EPERM):
                hint = "CAP_DAC_OVERRIDE is needed, and a kernel that isn't locked down"
            raise KernelError(f"cannot {action} in {self.path}", errno=error.errno or 0, hint=hint) from None


def find(mounts: Path = Path("/proc/self/mounts")) -> Tracefs:
    """Find where tracefs is mounted; raise KernelError with the command to mount it."""
    for line in mounts.read_text().splitlines():
        _device, path, kind, *_ = line.split(" ")
        if kind == "tracefs":
            return Tracefs(Path(path.encode().decode("unicode_escape")))
    raise KernelError("tracefs is not mounted", hint="mount -t tracefs tracefs /sys/kernel/tracing")


def _group(pid: int) -> str:
    return f"gospan_{pid}_{start_time(pid)}"


def start_time(pid: int) -> int:
    """Give when a process started in clock ticks since boot, 0 if there is none; proc(5), field 22 of stat.

    With it a process can be told from a later one of the same number.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
