"""Telling what is traced and what is not, once each."""

from __future__ import annotations

from agent.discovery.processes import Process
from agent.executables import Executable
from agent.kernel.programs import Programs
from agent.log import Event, Logger, emit


class Announcer:
    """Writes the messages about executables that an administrator waits for."""

    def __init__(self, programs: Programs, log: Logger) -> None:
        self._programs = programs
        self._log = log
        self._refused_told = 0

    def attached(self, executable: Executable) -> None:
        """Say what is traced of an executable, and what is not."""
        path = executable.path
        emit(
            self._log,
            Event.ATTACHED,
            f"tracing {path}: {', '.join(one.library.name for one in executable.libraries)}",
            exe=path,
            go=executable.plan.go_version,
            probes=executable.probes,
        )
        for one in executable.off:
            self._log.info(f"not traced in {path}: {one.what}", exe=path, why=one.why)

    def detached(self, executable: Executable, why: str) -> None:
        """Say that an executable is traced no longer."""
        self._log.info(f"no longer tracing {executable.path}: {why}", exe=executable.path)

    def skipped(self, process: Process, reason: str) -> None:
        """Say that a Go program is left alone that ought to be traced."""
        emit(
            self._log,
            Event.SKIPPED,
            f"not tracing {process.path}: {reason}",
            exe=process.path,
            pid=process.pid,
        )

    def refused(self) -> None:
        """Say what the kernel didn't take of the programs that had to be loaded since the last time."""
        refused = self._programs.refused
        for one in refused[self._refused_told :]:
            emit(
                self._log,
                Event.SKIPPED,
                f"this kernel refuses a part of {one.library}",
                library=one.library,
                program=one.program,
                reason=one.reason,
            )
        self._refused_told = len(refused)
