"""Processes as /proc shows them. One that ends while it is looked at is a normal result, not an error."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_MAX_COMMAND_LINE = 64 << 10
_MAX_STATUS = 64 << 10


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """An executable file, told apart from every other and from itself after it was written to."""

    device: int
    inode: int
    size: int
    modified_ns: int

    def same_inode(self, other: FileIdentity) -> bool:
        """Whether the two are one file, perhaps before and after it was written to."""
        return (self.device, self.inode) == (other.device, other.inode)


@dataclass(frozen=True, slots=True)
class Process:
    """A process and the file that it runs. `path` is the link's text: it may be of another mount namespace, or gone.

    Where it has `ended`, only its file is left.
    """

    pid: int
    path: str
    file: FileIdentity
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Owner:
    """What selectors want to know besides the path."""

    command_line: str
    user: str
    uid: int


def pids(procfs: Path = Path("/proc")) -> Iterator[int]:
    """Give the number of every process."""
    with os.scandir(procfs) as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def look(pid: int, procfs: Path = Path("/proc")) -> Process | None:
    """Look at a process; None where it is gone, is a kernel thread, or may not be looked at."""
    link = procfs / str(pid) / "exe"
    try:
        status = link.stat()
        path = str(link.readlink()).removesuffix(" (deleted)")
    except OSError:
        return None
    return Process(pid, path, identity_of(status))


def look_at_file(pid: int, path: str) -> Process | None:
    """Look at the file that an ended process ran; None where it is gone too, or can't be told by this path."""
    if not path.startswith("/"):
        return None
    try:
        return Process(pid, path, identity_of(Path(path).stat()), ended=True)
    except OSError:
        return None


def identity(pid: int, procfs: str = "/proc") -> FileIdentity | None:
    """Tell which file a process runs: the cheap half of `look`, for the scan."""
    try:
        status = os.stat(f"{procfs}/{pid}/exe")  # noqa: PTH116 -- thrice as fast as Path, and it is done for all
    except OSError:
        return None
    return identity_of(status)


def identity_of(status: os.stat_result) -> FileIdentity:
    """Tell a file by what stat(2) says of it."""
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def owner(pid: int, procfs: Path = Path("/proc")) -> Owner | None:
    """Read command line (arguments parted by spaces) and user of a process; None where it is gone."""
    try:
        with (procfs / str(pid) / "cmdline").open("rb") as file:
            command_line = file.read(_MAX_COMMAND_LINE)
        with (procfs / str(pid) / "status").open("rb") as file:
            uid = _effective_uid(file.read(_MAX_STATUS))
    except OSError:
        return None
    words = command_line.rstrip(b"\0").split(b"\0")
    return Owner(b" ".join(words).decode("utf-8", "replace"), _user(uid), uid)


def _effective_uid(status: bytes) -> int:
    """The user that a process acts as, by its status (proc(5)).

    The owner of /proc/PID would be root where the program has capabilities of its own, or may not be dumped.
    """
    for line in status.splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[2])
    raise ProcessLookupError


@lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
