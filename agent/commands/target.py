"""Which file is meant: that of a path, or the one that a process runs."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.commands import CommandError

PROC = Path("/proc")

_DELETED = " (deleted)"
"""What the kernel puts behind the path of a file that has no name any more (proc_pid_exe(5))."""
_PF_KTHREAD = 0x00200000
"""In the flags of /proc/PID/stat: the process is a thread of the kernel (include/linux/sched.h)."""


@dataclass(frozen=True, slots=True)
class Target:
    """A file that is open as `fd`. `path` is for people: for a process it is the name in its own mount namespace.

    `pid` is the process that was asked for, if one was; `deleted` says that the file it runs has no name any more.
    """

    path: str
    fd: int
    pid: int | None = None
    deleted: bool = False


@contextlib.contextmanager
def open_target(text: str, *, proc: Path = PROC) -> Iterator[Target]:
    """Open what the user named: a number is a process, everything else a path. Raises CommandError."""
    target = open_process(int(text), proc) if re.fullmatch(r"[0-9]{1,10}", text) else open_path(text)
    try:
        yield target
    finally:
        os.close(target.fd)


def open_path(path: str) -> Target:
    """Open a file. Raises CommandError."""
    try:
        # O_NONBLOCK: a FIFO would wait for its writer.
        return Target(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: {_reason(error)}") from None


def _reason(error: OSError | ValueError) -> str:
    if not isinstance(error, OSError):
        return "is no path"
    if error.errno == errno.ENOENT:
        return "there is no such file"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "you may not read it; try sudo"
    return f"can't be opened: {error.strerror}"


def open_process(pid: int, proc: Path = PROC) -> Target:
    """Open the executable of a process, by the kernel's own link to it: also if it was deleted, or lies in a container.

    Raises CommandError.
    """
    link = proc / str(pid) / "exe"
    try:
        name = os.readlink(link)  # noqa: PTH115 -- a Path would lose nothing but the blanks that matter here
        fd = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandError(_why_not(pid, error, proc)) from None
    deleted = name.endswith(_DELETED) and not _is(proc / str(pid) / "root", name, fd)
    return Target(name.removesuffix(_DELETED) if deleted else name, fd, pid, deleted)


def _is(root: Path, name: str, fd: int) -> bool:
    """Say whether a file has this very name: some do end in "(deleted)"."""
    try:
        return os.path.samestat(os.stat(f"{root}{name}"), os.fstat(fd))  # noqa: PTH116
    except OSError:
        return False


def _why_not(pid: int, error: OSError, proc: Path) -> str:
    """Say in a sentence why the executable of a process can't be opened."""
    if error.errno in (errno.EACCES, errno.EPERM):
        if os.geteuid() == 0:
            return f"process {pid} may not be looked at: CAP_SYS_PTRACE is missing, or a security module forbids it"
        return f"process {pid} is another user's, or its program may not be read by you; try sudo"
    try:
        _, _, rest = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")
        state, flags = rest.split()[0], int(rest.split()[6])
    except (OSError, ValueError, IndexError):
        return f"there is no process {pid}"
    if flags & _PF_KTHREAD:
        return f"process {pid} is a thread of the kernel, which runs no file"
    if state in "ZX":
        return f"process {pid} has ended, and only waits for its parent to notice"
    return f"the executable of process {pid} can't be opened: {error.strerror}"
