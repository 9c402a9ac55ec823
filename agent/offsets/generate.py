"""Making the table: a small program a version, built and read, and everything put together.

Nothing is needed but the go command and a Go module proxy. Two witnesses are heard for every field, the program's type
information and its DWARF; where they differ there is no table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime

from agent.executable import ExecutableError
from agent.offsets.compact import compact
from agent.offsets.fields import Wanted
from agent.offsets.layouts import DisagreementError, read_layouts
from agent.offsets.programs import STANDARD_LIBRARY, Program
from agent.offsets.state import State
from agent.offsets.table import ARCHITECTURES, Module, Table
from agent.offsets.toolchains import (
    GoError,
    Toolchains,
    UnavailableError,
    build,
    module_versions,
    toolchain_versions,
)
from agent.offsets.versions import ends_first, minor, order

_NOT_YET = "not built yet"


class GenerateError(Exception):
    """The table can't be made: a sentence for each reason."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class Task:
    """A version of a program's module to be built, for these architectures."""

    program: Program
    version: str
    architectures: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.program.module} {self.version}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: a few words, and whether it may be tried again."""

    task: Task
    words: str
    failed: bool = False


@dataclass(slots=True)
class Generator:
    """Builds what is missing in the state. `since` is a table whose versions are taken from it and not built."""

    state: State
    toolchains: Toolchains
    wanted: Wanted
    programs: Sequence[Program]
    since: Table | None = None
    jobs: int = 1
    _versions: dict[str, list[str]] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)

    def tasks(self) -> list[Task]:
        """What there is to be built, in the order in which it is most useful. Raises GoError."""
        found: list[Task] = []
        released = self._list(STANDARD_LIBRARY)
        # The last patch of each minor version builds the modules.
        self._kept = {max(patches, key=order) for patches in _by_minor(released).values()}
        for program in self.programs:
            versions = released if program.module == STANDARD_LIBRARY else self._list(program.module)
            versions = [one for one in versions if order(one) >= order(program.since)]
            self._versions[program.module] = versions
            both = _ends(versions) if program.module == STANDARD_LIBRARY else set(versions)
            tasks = [
                Task(program, version, ARCHITECTURES if version in both else ARCHITECTURES[:1])
                for version in ends_first(versions)
                if not self._listed(program.module, version)
            ]
            found += tasks
        return [task for task in found if not self._done(task)]

    def run(self, tasks: Iterable[Task], report: Callable[[Outcome], None]) -> None:
        """Build and read; `report` is called in this thread after each. May be interrupted, and called again.

        Raises GenerateError if anything failed that isn't the version's own fault, or if the two sources disagree.
        """
        failures: list[str] = []
        waiting = iter(tasks)
        running: set[Future[Outcome]] = set()
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while True:
                    while len(running) < self.jobs and (task := next(waiting, None)):
                        running.add(pool.submit(self._carry_out, task))
                    if not running:
                        break
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        outcome = future.result()
                        failures += [f"{outcome.task}: {outcome.words}"] if outcome.failed else []
                        report(outcome)
            finally:
                self._stop.set()
        self._stop.clear()
        if failures:
            raise GenerateError(*failures)

    def table(self, generated: datetime, *, partial: bool = False) -> Table:
        """Put the table together from what was read. With `partial`, versions not built yet are listed as such.

        Raises GenerateError where something is missing, and if a wanted field exists nowhere.
        """
        modules = {program.module: self._module(program, partial=partial) for program in self.programs}
        known = {name for module in modules.values() for name in module.fields}
        nowhere = sorted(self.wanted.names - known)
        if nowhere and not partial:
            raise GenerateError(
                *(f"{name}: no version of any module has it; is its tag misspelt?" for name in nowhere)
            )
        return Table(generated, modules)

    def _list(self, module: str) -> list[str]:
        known = self._versions.get(module)
        if known is None:
            listed = toolchain_versions() if module == STANDARD_LIBRARY else module_versions(module)
            if module == STANDARD_LIBRARY:
                since = next(one.since for one in self.programs if one.module == STANDARD_LIBRARY)
                listed = [one for one in {*listed, *self.toolchains.given} if order(one) >= order(since)]
            known = self._versions[module] = sorted(listed, key=order)
        return known

    def _listed(self, module: str, version: str) -> bool:
        old = self.since.modules.get(module) if self.since else None
        return old is not None and (version in old or version in old.unavailable)

    def _done(self, task: Task) -> bool:
        if task.program.module == STANDARD_LIBRARY:
            return all(
                self.state.has(task.program, task.version, arch, task.version) for arch in task.architectures
            )
        return bool(self._reason(task) or self._pair(task))

    def _carry_out(self, task: Task) -> Outcome:
        try:
            if task.program.module == STANDARD_LIBRARY:
                return self._standard_library(task)
            return self._of_module(task)
        except (GoError, DisagreementError, ExecutableError, OSError, ValueError) as error:
            return Outcome(task, str(error), failed=True)

    def _standard_library(self, task: Task) -> Outcome:
        try:
            words = [
                self._build(task, arch, task.version)
                for arch in task.architectures
                if not self.state.has(task.program, task.version, arch, task.version)
            ]
        finally:
            if task.version not in self._kept:
                self.toolchains.drop(task.version)
        return Outcome(task, ", ".join(words))

    def _of_module(self, task: Task) -> Outcome:
        """Build with the newest and with the oldest Go release that can: what a module has may depend on it."""
        releases = sorted(self._kept, key=order, reverse=True)
        words = []
        for arch in task.architectures:
            for candidates in (releases, releases[::-1]):
                for go in candidates:
                    if not self.state.has(task.program, task.version, arch, go):
                        words.append(self._build(task, arch, go))
                    if not self.state.reason(task.program, task.version, arch, go):
                        break
        return Outcome(task, ", ".join(words))

    def _build(self, task: Task, arch: str, go: str) -> str:
        """Build and read a version, or keep the reason why that can't be."""
        if self._stop.is_set():
            raise GoError("interrupted")
        self.state.directory.mkdir(parents=True, exist_ok=True)
        name = f"{task.program.directory.name}-{task.version}-{arch}-go{go}.{threading.get_ident()}"
        target = self.state.directory / name
        try:
            build(task.program, task.version, self.toolchains.get(go), target, arch=arch)
            layouts = read_layouts(target)
            layouts.offsets(of_module(self.wanted, task.program.module, self.programs))
        except UnavailableError as error:
            if self._stop.is_set():
                raise GoError("interrupted") from None
            self.state.keep_reason(task.program, task.version, arch, go, str(error))
            return f"{arch} with go{go}: {error}"
        finally:
            target.unlink(missing_ok=True)
        self.state.keep(task.program, task.version, arch, go, layouts)
        return f"{arch} with go{go}: {len(layouts.structs)} structs"

    def _pair(self, task: Task) -> list[tuple[str, str]]:
        """(architecture, release) of the builds of a module's version, newest and oldest; empty if any is missing."""
        found = []
        releases = sorted(self._kept, key=order, reverse=True)
        for arch in task.architectures:
            for candidates in (releases, releases[::-1]):
                for go in candidates:
                    if not self.state.has(task.program, task.version, arch, go):
                        return []
                    if not self.state.reason(task.program, task.version, arch, go):
                        found.append((arch, go))
                        break
        return found

    def _reason(self, task: Task) -> str:
        """Why no release can build a version: what the newest said of it. Empty if one can, or wasn't tried yet."""
        reasons = [
            self.state.reason(task.program, task.version, ARCHITECTURES[0], go)
            for go in sorted(self._kept, key=order, reverse=True)
        ]
        return reasons[0] if reasons and all(reasons) else ""

    def _module(self, program: Program, *, partial: bool) -> Module:
        wanted = of_module(self.wanted, program.module, self.programs)
        offsets: dict[str, dict[str, dict[str, int]]] = {arch: {} for arch in ARCHITECTURES}
        unavailable: dict[str, str] = {}
        old = self.since.modules.get(program.module) if self.since else None
        if old is not None:
            self._take_over(old, wanted, offsets)
            unavailable |= old.unavailable
        for version in self._versions[program.module]:
            if self._listed(program.module, version):
                continue
            reason = self._collect(program, version, wanted, offsets)
            if reason == _NOT_YET and not partial:
                raise GenerateError(f"{program.module} {version} is {_NOT_YET}")
            if reason:
                unavailable[version] = reason
        return compact(
            program.module,
            sorted(offsets["amd64"], key=order),
            amd64=offsets["amd64"],
            arm64=offsets["arm64"],
            unavailable={version: unavailable[version] for version in sorted(unavailable, key=order)},
        )

    def _take_over(
        self, old: Module, wanted: Wanted, offsets: Mapping[str, dict[str, dict[str, int]]]
    ) -> None:
        unknown = sorted(wanted.names - old.fields.keys())
        if unknown:
            raise GenerateError(
                *(f"{name}: the table to go on from hasn't it; build without --since" for name in unknown)
            )
        for arch, versions in (("amd64", old.versions), ("arm64", old.arm64)):
            for version in versions:
                found = {name: old.offset(name, version, arch) for name in wanted.names}
                offsets[arch][version] = {name: one for name, one in found.items() if one is not None}

    def _collect(
        self, program: Program, version: str, wanted: Wanted, offsets: Mapping[str, dict[str, dict[str, int]]]
    ) -> str:
        """Add a version's offsets; what keeps it from being listed, else nothing."""
        task = Task(program, version, ARCHITECTURES)
        if program.module == STANDARD_LIBRARY:
            builds = [(arch, version) for arch in ARCHITECTURES]
            reason = self.state.reason(program, version, ARCHITECTURES[0], version)
        else:
            builds, reason = self._pair(task), self._reason(task)
        if reason:
            return reason
        for arch, go in builds:
            layouts = self.state.layouts(program, version, arch, go)
            if layouts is None:
                continue
            known = offsets[arch].setdefault(version, {})
            for name, offset in layouts.offsets(wanted).items():
                if known.setdefault(name, offset) != offset:
                    raise GenerateError(
                        f"{task}: the offset of {name} depends on the Go release that builds it"
                    )
        return "" if version in offsets["amd64"] else _NOT_YET


def of_module(wanted: Wanted, module: str, programs: Iterable[Program]) -> Wanted:
    """The part of `wanted` that a module declares: that whose path is the longest which the field begins with."""
    paths = [one.module for one in programs]

    def mine(name: str) -> bool:
        return _owner(name, paths) == module

    return Wanted(frozenset(filter(mine, wanted.fields)), frozenset(filter(mine, wanted.maps)))


def _owner(name: str, modules: Iterable[str]) -> str:
    if "." not in name.partition("/")[0] or "/" not in name:
        return STANDARD_LIBRARY  # its paths alone have no dot in the first element
    return max((one for one in modules if name.startswith((f"{one}/", f"{one}."))), key=len, default="")


def _by_minor(versions: Iterable[str]) -> dict[tuple[int, int] | None, list[str]]:
    found: dict[tuple[int, int] | None, list[str]] = {}
    for version in versions:
        found.setdefault(minor(version), []).append(version)
    return found


def _ends(versions: Iterable[str]) -> set[str]:
    """The first and last patch of each minor version: those are built for arm64 too."""
    return {version for patches in _by_minor(versions).values() for version in _first_and_last(patches)}


def _first_and_last(patches: Sequence[str]) -> Iterator[str]:
    yield min(patches, key=order)
    yield max(patches, key=order)
