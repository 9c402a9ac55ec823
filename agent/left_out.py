"""What is left out: the files that get no probes, the processes of Go programs that nobody listens to, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from agent.discovery.processes import FileIdentity

_REMEMBERED = 8192
"""How many files without probes are remembered; as many as the kernel remembers (bpf/process.bpf.c, files)."""

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Ignored:
    """A file without probes, and why; an empty reason is one that nobody asks for: it isn't Go."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotTraced:
    """A process of a Go program that is not traced, and why."""

    pid: int
    path: str
    why: str


class LeftOut:
    """Remembers files until something changes that could make them wanted, processes until they end."""

    def __init__(self) -> None:
        self._ignored: dict[FileIdentity, Ignored] = {}
        self._unwanted: dict[FileIdentity, None] = {}
        self._without_room: set[FileIdentity] = set()
        self._processes: dict[int, NotTraced] = {}

    @property
    def files(self) -> list[Ignored]:
        """The Go programs that are not traced, and why."""
        return [one for one in self._ignored.values() if one.reason]

    def processes(self, seen: Mapping[int, FileIdentity]) -> list[NotTraced]:
        """The processes of Go programs that are not traced, by what was found out of them and of their files."""
        files = ((pid, self._ignored.get(file)) for pid, file in seen.items() if pid not in self._processes)
        found = [NotTraced(pid, one.path, one.reason) for pid, one in files if one is not None and one.reason]
        return sorted([*self._processes.values(), *found], key=lambda one: one.pid)

    def ignore(self, file: FileIdentity, path: str, reason: str, *, for_room: bool = False) -> None:
        """Leave a file out, with all processes of it; `for_room`: until another one is detached."""
        _remember(self._ignored, file, Ignored(path, reason))
        if for_room:
            self._without_room.add(file)

    def ignores(self, file: FileIdentity, *, for_good: bool = False) -> bool:
        """Whether a file is left out; with `for_good`, not only for want of room."""
        return file in self._ignored and not (for_good and file in self._without_room)

    def want_not(self, file: FileIdentity) -> None:
        """Take note that a file is Go, and that nobody wants the processes of it that were met."""
        _remember(self._unwanted, file, None)

    def wants_not(self, file: FileIdentity) -> bool:
        """Whether that was noted."""
        return file in self._unwanted

    def leave(self, pid: int, path: str, why: str) -> None:
        """Leave one process out."""
        self._processes[pid] = NotTraced(pid, path, why)

    def leaves(self, pid: int) -> bool:
        """Whether a process is left out by itself, and not with its file."""
        return pid in self._processes

    def forget(self, pid: int) -> None:
        """A process has ended, or is another one."""
        self._processes.pop(pid, None)

    def take_back_reasons(self) -> set[FileIdentity]:
        """Leave no file out any more that is Go, and give them: they are to be looked at again."""
        self._unwanted.clear()
        return self._take_back([file for file, one in self._ignored.items() if one.reason])

    def take_back_those_without_room(self) -> set[FileIdentity]:
        """Leave no file out any more for want of room, and give them."""
        return self._take_back(list(self._without_room))

    def _take_back(self, files: Iterable[FileIdentity]) -> set[FileIdentity]:
        taken = set(files)
        for file in taken:
            self._ignored.pop(file, None)
        self._without_room -= taken
        return taken


def _remember(found: dict[FileIdentity, _V], file: FileIdentity, what: _V) -> None:
    """Add to what is known of files; the oldest is forgotten, and looked at again if it comes back."""
    if len(found) >= _REMEMBERED:
        del found[next(iter(found))]
    found[file] = what
