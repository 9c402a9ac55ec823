"""Executable files that are traced: each has a slot in the programs' layouts, and its probes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from agent.discovery.processes import FileIdentity
from agent.kernel.attach import Attachment
from agent.kernel.errors import KernelError
from agent.kernel.programs import Programs
from agent.plan import LibraryPlan, Off, Plan

_CLOSERS = 64
"""Threads that take probes off at a time."""


@dataclass(slots=True)
class Executable:
    """A file with probes in it. `off` are the plan's reasons and those that came up when it was attached.

    `fd` holds on to the file itself, whatever becomes of its name; `leased` says whether writers wait for its being
    closed (agent/discovery/watch.py); `attachments` are by the library's name; `processes` counts those that are
    traced; `watch` is its number in the watch of files; `keys` are what the kernel calls it (struct file_key).
    """

    file: FileIdentity
    path: str
    slot: int
    plan: Plan
    libraries: tuple[LibraryPlan, ...]
    off: tuple[Off, ...]
    fd: int
    attachments: dict[str, list[Attachment]]
    leased: bool = False
    processes: int = 0
    watch: int = -1
    keys: set[bytes] = field(default_factory=set)

    @property
    def removed(self) -> bool:
        """Whether the file has no name any more, so that nothing can start it again."""
        return os.fstat(self.fd).st_nlink == 0

    @property
    def probes(self) -> int:
        """How many places are attached to."""
        return sum(len(library.probes) for library in self.libraries)


class NoRoomError(KernelError):
    """As many executables are traced as there are slots for."""

    def __init__(self) -> None:
        super().__init__(
            "as many executables are traced as there is room for",
            hint="raise kernel.max_executables, or exclude some with discovery.exclude",
        )


class Executables:
    """Attaches plans to files, and takes the probes off again."""

    def __init__(self, programs: Programs, slots: int, alive: Callable[[], None] = lambda: None) -> None:
        """`alive` is called between one library and the next: the first program with one has it loaded."""
        self._programs = programs
        self._alive = alive
        self._free = list(range(slots - 1, -1, -1))
        self._attached: dict[FileIdentity, Executable] = {}

    def get(self, file: FileIdentity) -> Executable | None:
        """Give the executable of a file, if it is traced."""
        return self._attached.get(file)

    def all(self) -> list[Executable]:
        """Give all executables that are traced."""
        return list(self._attached.values())

    def attach(self, file: FileIdentity, fd: int, plan: Plan) -> Executable:
        """Put a plan's probes into an open file; `fd` is duplicated.

        A library of which a required probe is refused is off, and nothing of it stays attached. Raises NoRoomError
        where there is no room for another executable, KernelError where no library is left.
        """
        if not self._free:
            raise NoRoomError
        slot = self._free[-1]
        off = list(plan.off)
        attached: list[LibraryPlan] = []
        attachments: dict[str, list[Attachment]] = {}
        for library in plan.traced:
            name = library.library.name
            try:
                attachments[name] = self._attach_library(slot, library, f"/proc/self/fd/{fd}", off)
                attached.append(library)
            except KernelError as error:
                off.append(Off(name, str(error)))
        if not attached:
            raise KernelError("; ".join(f"{one.what}: {one.why}" for one in off) or "nothing can be traced")
        executable = Executable(
            file, plan.path, slot, plan, tuple(attached), tuple(off), os.dup(fd), attachments
        )
        self._attached[file] = executable
        self._free.pop()
        return executable

    def _attach_library(self, slot: int, library: LibraryPlan, path: str, off: list[Off]) -> list[Attachment]:
        """Attach one library: all of its required probes, or none and a KernelError."""
        self._alive()
        name = library.library.object
        places: dict[str, list[int]] = {}
        for planned in library.probes:
            places.setdefault(planned.program, []).append(planned.file_offset)
        attachments: list[Attachment] = []
        try:
            self._programs.write_layouts(name, slot, library.layouts)
            for probe in library.library.probes:
                # A program that is at the places of several probes is attached by the first of them.
                offsets = places.pop(probe.program, None)
                if offsets is None:
                    continue
                try:
                    attachments.append(self._programs.attach(name, probe.program, path, offsets))
                except KernelError as error:
                    if probe.required:
                        raise
                    off.append(Off(probe.gives, str(error)))
        except KernelError:
            _close_all(attachments)
            raise
        return attachments

    def change(self, executable: Executable, plan: Plan) -> None:
        """Carry out another plan of the same file: what both have stays attached, untouched.

        What can't be attached now is off, with the reason.
        """
        wanted = {library.library.name: library for library in plan.traced}
        kept = {library.library.name: library for library in executable.libraries}
        gone = [
            name
            for name in executable.attachments
            if name not in wanted or wanted[name].probes != kept[name].probes
        ]
        _close_all([one for name in gone for one in executable.attachments.pop(name)])
        known = set(executable.plan.off)
        off = [*plan.off, *(one for one in executable.off if one not in known and one.what not in wanted)]
        attached: list[LibraryPlan] = []
        for name, library in wanted.items():
            if name in executable.attachments:
                attached.append(kept[name])
                continue
            try:
                executable.attachments[name] = self._attach_library(
                    executable.slot, library, f"/proc/self/fd/{executable.fd}", off
                )
                attached.append(library)
            except KernelError as error:
                off.append(Off(name, str(error)))
        executable.plan, executable.libraries, executable.off = plan, tuple(attached), tuple(off)

    def detach(self, executable: Executable) -> None:
        """Take all probes out of a file."""
        _close_all(_attachments(executable))
        executable.attachments.clear()
        if self._attached.pop(executable.file, None) is not None:
            os.close(executable.fd)
            self._free.append(executable.slot)

    def close(self) -> None:
        """Take the probes out of all files."""
        executables = self.all()
        _close_all([attachment for executable in executables for attachment in _attachments(executable)])
        for executable in executables:
            executable.attachments.clear()
            self.detach(executable)


def _attachments(executable: Executable) -> list[Attachment]:
    return [one for attachments in executable.attachments.values() for one in attachments]


def _close_all(attachments: list[Attachment]) -> None:
    """Close attachments together: each waits until no processor is in its program (Attachment.close)."""
    if attachments:
        with ThreadPoolExecutor(min(len(attachments), _CLOSERS)) as pool:
            for _ in pool.map(Attachment.close, attachments):
                pass
