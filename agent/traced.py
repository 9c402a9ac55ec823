"""The processes that are traced: what the kernel's programs know of them, and what their spans say of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from agent.config import Resources
from agent.discovery.selection import Choice
from agent.executables import Executable
from agent.log import Logger
from agent.roster import Roster
from agent.spans.pipeline import Pipeline
from agent.spans.resource import Build, Host, describe, describe_ended

_KEPT_AFTER_END = 5.0
"""How long a process is remembered after its end, in seconds: records of it may still be on their way."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A process that is traced; `number` is what its records call it, `service` its service.name."""

    pid: int
    number: int
    service: str
    executable: Executable
    choice: Choice


class TracedProcesses:
    """Has processes listened to, and their resources known, from their start to a while after their end."""

    def __init__(self, roster: Roster, pipeline: Pipeline, log: Logger) -> None:
        self._roster = roster
        self._pipeline = pipeline
        self._log = log
        self._host = Host.read()
        self._traced: dict[int, Traced] = {}
        self._ended: list[tuple[float, int]] = []

    def __contains__(self, pid: int) -> bool:
        return pid in self._traced

    def get(self, pid: int) -> Traced | None:
        """Give a process, if it is traced."""
        return self._traced.get(pid)

    def all(self) -> list[Traced]:
        """Give all processes that are traced."""
        return list(self._traced.values())

    def follow(self, pid: int, executable: Executable, number: int, choice: Choice) -> None:
        """Have the programs listen to a process, and know its resource; `number` is not 0 where they do already."""
        number = number or self._roster.enter(pid, executable.slot, choice)
        resource = describe(pid, self._host, build=_build(executable), declared=choice.resource)
        if resource is None:
            # It ended, perhaps before the kernel could be told that it is traced; then nobody else takes that back.
            if self._roster.number_of(pid) == number:
                self._roster.strike(pid)
            self.know_ended(pid, executable, number, choice.resource)
            return
        if choice.sampler_ignored:
            self._log.warning(choice.sampler_ignored, pid=pid, exe=executable.path)
        self._pipeline.know(number, resource.message())
        self._traced[pid] = Traced(pid, number, resource.service_name, executable, choice)
        executable.processes += 1

    def know_ended(self, pid: int, executable: Executable, number: int, declared: Resources) -> None:
        """Know the resource of a process that the kernel traced, and that ended before it could be looked at."""
        resource = describe_ended(
            pid, executable.path, number, self._host, build=_build(executable), declared=declared
        )
        self._pipeline.know(number, resource.message())
        self._ended.append((time.monotonic(), number))

    def treat(self, traced: Traced, choice: Choice) -> None:
        """Trace a process in another way from now on: what is attached stays."""
        executable = traced.executable
        self._roster.change(traced.pid, executable.slot, choice, traced.number)
        resource = describe(traced.pid, self._host, build=_build(executable), declared=choice.resource)
        if resource is None:
            return  # it ended: its last spans keep the resource that they had
        self._pipeline.know(traced.number, resource.message())
        self._traced[traced.pid] = replace(traced, service=resource.service_name, choice=choice)

    def drop(self, pid: int) -> Executable | None:
        """Take note that a process ended, or became another program; give its executable if it was traced."""
        traced = self._traced.pop(pid, None)
        if traced is None:
            return None
        self._ended.append((time.monotonic(), traced.number))
        traced.executable.processes -= 1
        return traced.executable

    def stop(self, pid: int) -> None:
        """Have the programs listen no longer to a process that goes on."""
        self._roster.strike(pid)
        self.drop(pid)

    def tidy(self) -> None:
        """Forget processes that ended a while ago."""
        before = time.monotonic() - _KEPT_AFTER_END
        while self._ended and self._ended[0][0] < before:
            self._pipeline.forget(self._ended.pop(0)[1])


def _build(executable: Executable) -> Build:
    return Build(go_version=executable.plan.go_version, service_version=executable.plan.version)
