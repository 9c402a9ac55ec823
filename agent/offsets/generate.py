"""Making the table: a small program a version, built and read, and everything put together.

Nothing is needed but the go command and a Go module proxy. Two witnesses are heard for every field, the program's type
information and its DWARF; where they differ there is no table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent.executable import ExecutableError
from agent.offsets.compact import compact
from agent.offsets.fields import Wanted
from agent.offsets.layouts import DisagreementError, Layouts, read_layouts
from agent.offsets.programs import Program
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
from agent.offsets.versions import STANDARD_LIBRARY, by_minor, ends_first, order

_NOT_YET = "not built yet"
_OLDEST_GO = "1.19"
_MAIN, _OTHER = ARCHITECTURES


class GenerateError(Exception):
    """The table can't be made: a sentence for each reason."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class Task:
    """A version of a program's module to be built for an architecture, by the newest Go that can or by the oldest."""

    program: Program
    version: str
    arch: str
    by_oldest: bool = False

    def __str__(self) -> str:
        return f"{self.program.module} {self.version} {self.arch}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: a few words, and whether it may be tried again."""

    task: Task
    words: str
    failed: bool = False


def proxy_versions(module: str) -> list[str]:
    """All versions of a module that the proxy knows of. Raises GoError."""
    return toolchain_versions() if module == STANDARD_LIBRARY else module_versions(module)


@dataclass(slots=True)
class Generator:
    """Builds what is missing in the state. `since` is a table whose versions are taken from it and not built, but for
    modules of which a field is wanted that it doesn't have. `list_versions` gives all versions of a module, of the
    proxy's if it is not given. With `only`, other modules are what `since` has of them.
    """

    state: State
    toolchains: Toolchains
    wanted: Wanted
    programs: Sequence[Program]
    since: Table | None = None
    jobs: int = 1
    list_versions: Callable[[str], list[str]] = proxy_versions
    only: Collection[str] = ()
    _versions: dict[str, list[str]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def tasks(self) -> list[Task]:
        """What there is to be built for amd64: the first and last patches of Go's minor versions, then modules, then
        the rest, so that an unfinished table is of use early. Raises GoError.
        """
        ends = {patches[at] for patches in by_minor(self._list(STANDARD_LIBRARY)).values() for at in (0, -1)}
        first: list[Task] = []
        rest: list[Task] = []
        for program in self._asked:
            for version in ends_first(self._list(program.module)):
                if not self._listed(program.module, version):
                    task = Task(program, version, _MAIN)
                    later = program.module == STANDARD_LIBRARY and version not in ends
                    (rest if later else first).append(task)
        return [task for task in (*first, *rest) if not self._done(task)]

    def ends_tasks(self) -> list[Task]:
        """What there is to be built once that is done: the first and last version of every range of offsets, for arm64,
        and of modules by the oldest Go as well. To be asked again when that is done, until nothing is left.

        Offsets are the same where types have the same sizes, as on these two architectures, and by whatever Go a module
        is built, unless its build constraints ask for that. Where a range has both its ends in common, so has it what
        lies between. Beyond a range's end a field may still exist for the oldest Go, which makes the range longer:
        golang.org/x/net since 0.54 has little left of its own with Go 1.27. Raises GenerateError.
        """
        found: list[Task] = []
        for program in self._asked:
            module = self._module(program, partial=True)
            ends = _ends(module)
            beyond = {
                module.versions[at]
                for ranges in module.fields.values()
                for one in ranges
                for at in (module.versions.index(one.first) - 1, module.versions.index(one.last) + 1)
                if 0 <= at < len(module.versions)
            }
            for version in sorted(ends | beyond, key=order):
                if self._listed(program.module, version):
                    continue
                if version in ends:
                    found.append(Task(program, version, _OTHER))
                if program.module != STANDARD_LIBRARY:
                    found.append(Task(program, version, _MAIN, by_oldest=True))
                    if version in ends:
                        found.append(Task(program, version, _OTHER, by_oldest=True))
        return [task for task in found if not self._done(task)]

    def run(self, tasks: Iterable[Task], report: Callable[[Outcome], None]) -> None:
        """Build and read; `report` is called in this thread after each. May be interrupted, and called again.

        Raises GenerateError if anything failed that isn't the version's own fault, or if the two sources disagree.
        """
        self._stop.clear()
        self.state.directory.mkdir(parents=True, exist_ok=True)
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
        if failures:
            raise GenerateError(*failures)

    def table(self, generated: datetime, *, partial: bool = False) -> Table:
        """Put the table together from what was read. With `partial`, versions not built yet are listed as such.

        Raises GenerateError where something is missing, and if a wanted field exists nowhere.
        """
        modules = {program.module: self._module(program, partial=partial) for program in self._asked}
        known = {name for module in modules.values() for name in module.fields}
        # Of modules that have no releases, such as genproto's, only type information tells.
        asked = [of_module(self.wanted, program.module, self.programs).names for program in self._asked]
        nowhere = sorted(frozenset().union(*asked) - known)
        if self.only and self.since:
            modules |= {path: one for path, one in self.since.modules.items() if path not in self.only}
        if nowhere and not partial:
            raise GenerateError(
                *(f"{name}: no version of any module has it; is its tag misspelt?" for name in nowhere)
            )
        return Table(generated, modules)

    @property
    def _asked(self) -> list[Program]:
        """The programs of modules of which anything is wanted."""
        return [
            one
            for one in self.programs
            if of_module(self.wanted, one.module, self.programs).names
            and (not self.only or one.module in self.only)
        ]

    def _list(self, module: str) -> list[str]:
        """All versions of a module that are supported, oldest first."""
        if module not in self._versions:
            listed = self.list_versions(module)
            if module == STANDARD_LIBRARY:
                listed = [*listed, *self.toolchains.given]
            program = next((one for one in self.programs if one.module == module), None)
            oldest = program.since if program else _OLDEST_GO
            listed = [*listed, *(program.released if program else ())]
            self._versions[module] = sorted({one for one in listed if order(one) >= order(oldest)}, key=order)
        return self._versions[module]

    def _listed(self, module: str, version: str) -> bool:
        old = self._old(module)
        return old is not None and (version in old or version in _settled(old))

    def _old(self, module: str) -> Module | None:
        """What there is to go on from. A module that lacks a field has to be built anew, every version of it; one that
        is unfinished goes on from the state, which has more.
        """
        old = self.since.modules.get(module) if self.since else None
        if old is None or not of_module(self.wanted, module, self.programs).names <= old.fields.keys():
            return None
        unfinished = _NOT_YET in old.unavailable.values() or not _ends(old) <= set(old.arm64)
        return None if unfinished else old

    def _done(self, task: Task) -> bool:
        return self._left(task) is None

    @property
    def _builders(self) -> dict[str, str]:
        """The Go releases that build modules, newest first: the last patch of each minor version, by that."""
        series = by_minor(self._list(STANDARD_LIBRARY))
        return {".".join(map(str, pair)): patches[-1] for pair, patches in reversed(series.items())}

    def _candidates(self, task: Task) -> list[str]:
        """The Go releases to try, as the state calls them. Go itself builds its own library."""
        if task.program.module == STANDARD_LIBRARY:
            return [task.version]
        newest_first = list(self._builders)
        return newest_first[::-1] if task.by_oldest else newest_first

    def _left(self, task: Task) -> str | None:
        """The Go release that has to be tried next; None if one has built it, or none can."""
        for go in self._candidates(task):
            if not self.state.has(task.program, task.version, task.arch, go):
                return go
            if not self.state.reason(task.program, task.version, task.arch, go):
                return None
        return None

    def _built(self, task: Task) -> Layouts | None:
        """What was read of the build that a task asks for."""
        found = (
            self.state.layouts(task.program, task.version, task.arch, go) for go in self._candidates(task)
        )
        return next((one for one in found if one is not None), None)

    def _carry_out(self, task: Task) -> Outcome:
        words = ""
        try:
            while (go := self._left(task)) is not None:
                words = self._build(task, go, self._builders.get(go, go))
        except (GoError, DisagreementError, ExecutableError, OSError, ValueError) as error:
            return Outcome(task, str(error), failed=True)
        finally:
            if task.program.module == STANDARD_LIBRARY and task.version not in self._builders.values():
                self.toolchains.drop(task.version)
        return Outcome(task, words)

    def _build(self, task: Task, go: str, release: str) -> str:
        """Build and read a version by a Go release, which the state calls `go`; or keep why that can't be."""
        if self._stop.is_set():
            raise GoError("interrupted")
        program, version, arch = task.program, task.version, task.arch
        target = (
            self.state.directory / f"{program.directory.name}-{version}-{arch}-go{go}.{threading.get_ident()}"
        )
        try:
            build(
                program,
                version,
                self.toolchains.get(release),
                target,
                arch=arch,
                modules=self.toolchains.modules,
            )
            layouts = read_layouts(target)
            layouts.offsets(of_module(self.wanted, program.module, self.programs))
        except UnavailableError as error:
            if self._stop.is_set():
                raise GoError("interrupted") from None
            self.state.keep_reason(program, version, arch, go, str(error))
            return f"go{release}: {error}"
        finally:
            target.unlink(missing_ok=True)
        self.state.keep(program, version, arch, go, layouts)
        return f"go{release}: {len(layouts.structs)} structs"

    def _reason(self, program: Program, version: str) -> str:
        """Why no release can build a version: what the newest said of it. Empty if one can, or wasn't tried yet."""
        tried = [version] if program.module == STANDARD_LIBRARY else list(self._builders)
        reasons = [self.state.reason(program, version, _MAIN, go) for go in tried]
        return reasons[0] if reasons and all(reasons) else ""

    def _module(self, program: Program, *, partial: bool) -> Module:
        wanted = of_module(self.wanted, program.module, self.programs)
        offsets: dict[str, dict[str, dict[str, int]]] = {arch: {} for arch in ARCHITECTURES}
        unavailable: dict[str, str] = {}
        old = self._old(program.module)
        if old is not None:
            _take_over(old, wanted, offsets)
            unavailable |= _settled(old)
        for version in self._list(program.module):
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

    def _collect(
        self, program: Program, version: str, wanted: Wanted, offsets: Mapping[str, dict[str, dict[str, int]]]
    ) -> str:
        """Add a version's offsets; what keeps it from being listed, else nothing."""
        if reason := self._reason(program, version):
            return reason
        for arch in ARCHITECTURES:
            task = Task(program, version, arch)
            newest, oldest = self._built(task), self._built(replace(task, by_oldest=True))
            if newest is None:
                continue
            known: dict[str, int] = {}
            for layouts in (newest, oldest):
                try:
                    found = layouts.offsets(wanted) if layouts else {}
                except DisagreementError as error:  # the field came to be wanted after the build
                    raise GenerateError(f"{task}: {error}; its program has to make that reachable") from None
                for name, offset in found.items():
                    if known.setdefault(name, offset) != offset:
                        raise GenerateError(
                            f"{task}: the offset of {name} depends on the Go release that builds it"
                        )
            offsets[arch][version] = known
        return "" if version in offsets[_MAIN] else _NOT_YET


def _take_over(old: Module, wanted: Wanted, offsets: Mapping[str, dict[str, dict[str, int]]]) -> None:
    for arch, versions in (("amd64", old.versions), ("arm64", old.arm64)):
        for version in versions:
            found = {name: old.offset(name, version, arch) for name in wanted.names}
            offsets[arch][version] = {name: one for name, one in found.items() if one is not None}


def _ends(module: Module) -> set[str]:
    """The first and the last version of every range."""
    return {end for ranges in module.fields.values() for one in ranges for end in (one.first, one.last)}


def _settled(old: Module) -> dict[str, str]:
    """The versions that a table lists as unavailable, without those that only its makers' patience lacked."""
    return {version: reason for version, reason in old.unavailable.items() if reason != _NOT_YET}


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
