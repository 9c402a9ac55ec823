"""Guarding the files that have probes in them: the probes come off before what is written to a file can run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from agent.discovery.watch import IN_MODIFY, FileWatch, is_awaited, lease
from agent.executables import Executable
from agent.log import Logger


class FileGuard:
    """Has writers wait where the file system lets it, and is told of writing and removing everywhere.

    Why both, and what is left: agent/discovery/watch.py.
    """

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._watched: dict[int, Executable] = {}
        self.watch = FileWatch()
        """Readable when `changed` has something to tell."""

    def hold(self, fd: int) -> str:
        """Have writers of an open file wait; give the reason where they can't be made to, else "".

        Raises BlockingIOError where it is being written to now.
        """
        try:
            lease(fd)
        except BlockingIOError:
            raise
        except OSError as error:
            return os.strerror(error.errno or 0)
        return ""

    def add(self, executable: Executable, why_not_held: str) -> None:
        """Guard a file from now on; `why_not_held` is what `hold` said of it."""
        executable.leased = not why_not_held
        if why_not_held:
            self._log.warning(
                f"don't write to {executable.path} in place while gospan runs, replace it: "
                "writers can't be made to wait",
                exe=executable.path,
                why=why_not_held,
            )
        try:
            number = self.watch.add(f"/proc/self/fd/{executable.fd}")
        except OSError as error:
            # fs.inotify.max_user_watches is used up. It is traced all the same.
            self._log.warning(
                "a traced file can't be watched: it must not be written to while gospan runs",
                exe=executable.path,
                error=str(error),
            )
            return
        executable.watch = number
        self._watched[number] = executable

    def remove(self, executable: Executable) -> None:
        """Guard a file no longer."""
        if executable.watch >= 0:
            del self._watched[executable.watch]
            self.watch.remove(executable.watch)

    def changed(self, executables: Iterable[Executable]) -> Iterator[tuple[Executable, str]]:
        """Give those of the files that the probes have to come out of now, and why; they may be removed meanwhile."""
        for leased in executables:
            if leased.leased and is_awaited(leased.fd):
                yield leased, "its file is about to be written to"
        for number, what in self.watch.changed().items():
            executable = self._watched.get(number)
            if executable is None:
                continue
            if what & IN_MODIFY:
                yield executable, "its file was written to"
            elif not executable.processes and executable.removed:
                yield executable, "its file was removed"

    def close(self) -> None:
        """Stop watching; idempotent."""
        self.watch.close()
