"""What is traced: which files get probes, which processes the programs listen to, and why the others don't.

A file is looked at once, when a process that runs it is met; from then on the kernel itself knows what to do with a
new process of it (bpf/process.bpf.c), before its first instruction runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from agent.announcer import Announcer
from agent.config import Config
from agent.discovery import processes
from agent.discovery.processes import FileIdentity, Process
from agent.discovery.selection import Candidate, Choice, Selection, by_own_environment
from agent.discovery.watch import FileWatch
from agent.executable import Executable as ExecutableFile
from agent.executable import ExecutableError, NotGoError
from agent.executables import Executable, Executables, NoRoomError
from agent.guard import FileGuard
from agent.kernel.errors import KernelError
from agent.kernel.programs import Programs
from agent.left_out import Ignored, LeftOut, NotTraced
from agent.log import Logger
from agent.offsets.resolve import Resolver
from agent.plan import Plan, make_plan
from agent.roster import Roster
from agent.spans.pipeline import Pipeline
from agent.spans.records import record_process, record_start, record_tgid
from agent.traced import Traced, TracedProcesses


class Tracer:
    """Follows processes and files. Everything happens in the thread that drains the records."""

    def __init__(
        self,
        config: Config,
        programs: Programs,
        pipeline: Pipeline,
        resolver: Resolver,
        log: Logger,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`alive` is called between executables, where many are gone through, and libraries of one."""
        self._config = config
        self._alive = alive
        self._programs = programs
        self._resolver = resolver
        self._log = log
        self._guard = FileGuard(log)
        self._executables = Executables(programs, config.kernel.max_executables, alive)
        self._left_out = LeftOut()
        self._seen: dict[int, FileIdentity] = {}
        self._closed = False
        self._announcer = Announcer(programs, log)
        self._announcer.refused()
        self._selection = Selection(config, cannot_write=programs.cannot_write)
        self._roster = Roster(programs)
        self._traced = TracedProcesses(self._roster, pipeline, log)
        exec_record = programs.format("process_exec_record")
        self._exec_file = exec_record.offset("file.inode")
        self._exec_path = slice(exec_record.offset("path"), exec_record.size)

    @property
    def watch(self) -> FileWatch:
        """What tells of files that change; `files_changed` is to be called then."""
        return self._guard.watch

    @property
    def traced(self) -> list[Traced]:
        """The processes that are traced now."""
        return self._traced.all()

    @property
    def executables(self) -> list[Executable]:
        """The files that have probes in them now, with processes or without."""
        return self._executables.all()

    @property
    def ignored(self) -> list[Ignored]:
        """The Go programs that are not traced, and why."""
        return self._left_out.files

    @property
    def not_traced(self) -> list[NotTraced]:
        """The processes of Go programs that are not traced, by what was found out of them and of their files."""
        return self._left_out.processes(self._seen)

    def scan(self) -> None:
        """Read /proc for what no event told: processes from before the start, and events that were lost."""
        for _ in self.looking():
            pass

    def looking(self) -> Iterator[None]:
        """Do what scan() does a process at a time: attaching to many executables can take minutes.

        Records may be handled between one step and the next. After a change of the configuration begin again.
        """
        before = dict(self._seen)
        found = list(processes.pids())
        for pid in found:
            file = processes.identity(pid)
            if file is not None and self._seen.get(pid) != file:
                self._gone(pid)
                self._meet(pid)
            yield
        for pid in before.keys() - set(found):
            if (
                self._seen.get(pid) == before[pid]
            ):  # else it is another process, which an event told of meanwhile
                self._gone(pid)
        if self._selection.by_port:
            self._choose_again()

    def process_started(self, record: bytes) -> None:
        """Handle a `struct process_exec_record`."""
        if not self._config.discovery.enabled:
            return
        pid = record_tgid(record)
        key = record[self._exec_file : self._exec_file + self._roster.key_size]
        traced = self._traced.get(pid)
        if traced is not None and traced.number >= record_start(record):
            # A scan has met it since: its number stays, or what it has open would be lost.
            if self._roster.is_key_of(key, traced.executable.file):
                self._name(traced.executable, key)
            return
        self._gone(pid)
        self._meet(pid, key=key, number=record_process(record), path=record[self._exec_path])

    def process_ended(self, record: bytes) -> None:
        """Handle a `struct process_exit_record`."""
        pid = record_tgid(record)
        traced = self._traced.get(pid)
        if traced is not None and traced.number == record_process(record):
            self._gone(pid)

    def files_changed(self) -> None:
        """Take the probes out of files that are written to, before anything runs what is in them then."""
        for executable, why in self._guard.changed(self._executables.all()):
            self._detach(executable, why)

    def tidy(self) -> None:
        """Forget processes that ended a while ago."""
        self._traced.tidy()

    def reconfigure(self, config: Config) -> None:
        """Go by another configuration from now on. What stays wanted stays attached, and its open spans go on.

        A scan finds what is wanted only now.
        """
        before, self._selection = self._selection, Selection(config, cannot_write=self._programs.cannot_write)
        self._config = config
        # What new processes are given.
        self._roster.forget_ignored_files()
        for executable in self._executables.all():
            libraries_off = self._selection.libraries_off(executable.path)
            if libraries_off.keys() != before.libraries_off(executable.path).keys():
                self._plan_again(executable, libraries_off)
            for key in executable.keys:
                self._name(executable, key)
            self._alive()
        self._look_again_at(self._left_out.take_back_reasons())
        self._choose_again()
        for executable in self._executables.all():
            choice = self._selection.of_path(executable.path)
            if not executable.processes and choice and not choice.wanted:
                self._detach(executable, choice.why)
                self._alive()
        self._roster.keep_headers(self._selection.headers)

    def resolve_by(self, resolver: Resolver) -> int:
        """Find offsets by another table from now on; give how many files have to be attached anew for it.

        Files of which the new table says nothing else stay attached, and their open spans go on. The others get a new
        slot, by the next scan: programs that are running must not see a layout that is half the old one.
        """
        self._resolver = resolver
        changed = 0
        for executable in self._executables.all():
            try:
                libraries_off = self._selection.libraries_off(executable.path)
                plan = self._plan(executable.path, executable.fd, libraries_off)
            except ExecutableError as error:
                self._log.error(f"{executable.path} stays as it is: {error}", exe=executable.path)
                continue
            if not plan.same_probes(executable.plan):
                self._detach(executable, "the offset table says something else of it now")
                changed += 1
            self._alive()
        self._roster.forget_ignored_files()
        self._look_again_at(self._left_out.take_back_reasons())
        return changed

    def close(self) -> None:
        """Take all probes off; nothing is attached from here on."""
        self._closed = True
        self._executables.close()
        self._guard.close()

    def _meet(self, pid: int, *, key: bytes | None = None, number: int = 0, path: bytes = b"") -> None:
        """Look at a process that started, or was found.

        `key` is its file as the kernel calls it, `path` as whoever started it did; `number` is not 0 where the kernel
        traces the process already.
        """
        process = processes.look(pid)
        if process is not None and (key is None or self._roster.is_key_of(key, process.file)):
            self._seen[pid] = process.file
        elif number:
            for executable in self._executables.all():
                if key in executable.keys:
                    choice = self._selection.of_path(executable.path)
                    declared = choice.resource if choice else self._config.resource
                    self._traced.know_ended(pid, executable, number, declared)
            return
        else:
            # It ended, or runs another program by now, which is told of by an event of its own.
            process = processes.look_at_file(pid, os.fsdecode(path.partition(b"\0")[0]))
            if process is None or key != self._roster.key_of(process.file):
                return
        try:
            self._consider(process, key or self._roster.key_of(process.file), number)
        except Exception:  # noqa: BLE001 -- one process must not cost the others their traces
            self._left_out.ignore(process.file, process.path, "there is a bug in gospan")
            self._log.error(f"a bug in gospan: {process.path} is not traced", pid=pid, exc_info=True)

    def _consider(self, process: Process, key: bytes, number: int) -> None:
        self.files_changed()
        if self._left_out.ignores(process.file):
            self._roster.ignore_file(key)
            return
        choice = self._choose(process)
        known = self._executables.get(process.file)
        executable = known or self._examine(process, attach=choice.wanted)
        if not choice.wanted and not process.ended and not self._left_out.ignores(process.file):
            self._left_out.leave(process.pid, process.path, choice.why)
        if executable is None:
            if self._left_out.ignores(process.file, for_good=True):
                self._roster.ignore_file(key)
            return
        if not number:
            self._name(executable, key)
        if choice.wanted and not process.ended:
            self._follow(process, executable, number, choice)
        elif number:
            # The file is known by a path whose processes are traced, and this one has another.
            self._roster.strike(process.pid)
        if known is None:
            self._announcer.attached(executable)

    def _name(self, executable: Executable, key: bytes) -> None:
        """Tell the kernel what to do with new processes of a file that it calls `key`."""
        executable.keys.add(key)
        choice = self._selection.of_path(executable.path)
        if choice is None or not choice.wanted:
            self._roster.ask_about_file(key)
        else:
            self._roster.trace_file(key, executable.slot, choice)

    def _examine(self, process: Process, *, attach: bool) -> Executable | None:
        """Plan a file and put its probes in; None where there is nothing to trace, or nothing can be.

        The file is opened first: it stays what it is, whatever becomes of the process meanwhile. Without `attach`,
        for a process that nobody wants, it is only seen whether the file is Go at all, once.
        """
        if self._closed or (not attach and self._left_out.wants_not(process.file)):
            return None
        try:
            path = process.path if process.ended else f"/proc/{process.pid}/exe"
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, ProcessLookupError):
            return None  # it ended; whatever runs the file next is looked at again
        except OSError as error:
            self._skip(process, f"it can't be opened: {error.strerror}")
            return None
        try:
            if processes.identity_of(os.fstat(fd)) != process.file:
                return None
            if attach:
                return self._attach(process, fd)
            ExecutableFile(process.path, fd=fd).close()
            self._left_out.want_not(process.file)
        except NotGoError:
            self._left_out.ignore(process.file, process.path, "")
        except NoRoomError as error:
            self._skip(process, str(error), for_room=True)
        except (ExecutableError, KernelError) as error:
            self._skip(process, str(error))
        finally:
            os.close(fd)
        return None

    def _attach(self, process: Process, fd: int) -> Executable | None:
        disabled = self._selection.libraries_off(process.path)
        plan = self._plan(process.path, fd, disabled)
        if not plan.libraries:
            self._left_out.ignore(process.file, process.path, plan.off[0].why)
            self._log.debug(f"nothing to trace in {process.path}: {plan.off[0].why}", exe=process.path)
            return None
        if not plan.traced:
            reason = "; ".join(f"{one.what}: {one.why}" for library in plan.libraries for one in library.off)
            if all(one.library.name in disabled for one in plan.libraries):
                self._left_out.ignore(process.file, process.path, reason)
                self._log.debug(f"not tracing {process.path}: {reason}", exe=process.path)
            else:
                self._skip(process, reason)
            return None
        for former in self._executables.all():
            if former.file.same_inode(process.file):
                self._detach(former, "its file was changed")
        try:
            why_not_held = self._guard.hold(fd)
        except BlockingIOError:
            return None  # it is being written to; when it is started it is looked at again
        executable = self._executables.attach(process.file, fd, plan)
        self._announcer.refused()
        self._guard.add(executable, why_not_held)
        return executable

    def _plan(self, path: str, fd: int, disabled: Mapping[str, str]) -> Plan:
        with ExecutableFile(path, fd=fd) as file:
            return make_plan(file, self._programs.types, self._resolver, disabled=disabled)

    def _plan_again(self, executable: Executable, disabled: Mapping[str, str]) -> None:
        """Attach and detach the libraries of a file that were turned on and off; the others are left alone."""
        try:
            plan = self._plan(executable.path, executable.fd, disabled)
        except ExecutableError as error:
            self._log.error(
                f"the libraries of {executable.path} stay as they are: {error}", exe=executable.path
            )
            return
        if not plan.traced:
            self._detach(executable, "all libraries in it are turned off")
            return
        self._executables.change(executable, plan)
        self._announcer.refused()
        self._announcer.attached(executable)

    def _skip(self, process: Process, reason: str, *, for_room: bool = False) -> None:
        """Leave a Go program alone that ought to be traced, and say why."""
        self._left_out.ignore(process.file, process.path, reason, for_room=for_room)
        self._announcer.skipped(process, reason)

    def _choose(self, process: Process) -> Choice:
        """Decide about a process; about one that ended, by its path alone."""
        choice = self._selection.of_path(process.path)
        if choice is None and process.ended:
            return self._selection.refused("it ended before it could be looked at")
        if process.ended and choice is not None:
            return choice
        candidate = Candidate(process.pid, process.path)
        return by_own_environment(choice or self._selection.of(candidate), candidate)

    def _follow(self, process: Process, executable: Executable, number: int, choice: Choice) -> None:
        if number and choice != self._selection.of_path(executable.path):
            # The kernel took it for one like the others of its file.
            self._roster.change(process.pid, executable.slot, choice, number)
        self._traced.follow(process.pid, executable, number, choice)

    def _gone(self, pid: int) -> None:
        """Take note that a process ended, or became another program."""
        self._seen.pop(pid, None)
        self._left_out.forget(pid)
        executable = self._traced.drop(pid)
        if executable and not self._closed and not executable.processes and executable.removed:
            self._detach(executable, "its file was removed")

    def _choose_again(self) -> None:
        """Decide anew about every process of a Go program that is known."""
        for pid, file in list(self._seen.items()):
            if pid not in self._traced and not self._left_out.leaves(pid):
                continue
            process = processes.look(pid)
            if process is None or process.file != file or pid not in self._seen:
                continue  # an event will tell, or the next scan
            choice = self._choose(process)
            traced = self._traced.get(pid)
            if traced is None and choice.wanted:
                self._gone(pid)
                self._meet(pid)
                self._alive()
            elif traced is None:
                self._left_out.leave(pid, process.path, choice.why)
            elif not choice.wanted:
                self._leave(traced, choice.why)
                self._alive()
            elif choice != traced.choice:
                self._traced.treat(traced, choice)

    def _leave(self, traced: Traced, why: str) -> None:
        """Stop listening to a process that goes on, and take the probes out of its file if nobody wants them now."""
        executable, file = traced.executable, self._seen[traced.pid]
        self._roster.strike(traced.pid)
        self._gone(traced.pid)
        self._seen[traced.pid] = file
        self._left_out.leave(traced.pid, executable.path, why)
        self._log.info(f"no longer tracing process {traced.pid}: {why}", exe=executable.path, pid=traced.pid)
        if not executable.processes and self._executables.get(executable.file) is executable:
            self._detach(executable, "none of its processes is to be traced")

    def _detach(self, executable: Executable, why: str) -> None:
        for key in executable.keys:
            self._roster.forget_file(key)
        for traced in self._traced.all():
            if traced.executable is executable:
                self._traced.stop(traced.pid)
                self._seen.pop(traced.pid, None)
        self._guard.remove(executable)
        self._executables.detach(executable)
        self._announcer.detached(executable, why)
        self._look_again_at(self._left_out.take_back_those_without_room())

    def _look_again_at(self, files: set[FileIdentity]) -> None:
        """Have the next scan look at the processes of these files as if they had not been seen."""
        for pid in [pid for pid, file in self._seen.items() if file in files]:
            del self._seen[pid]
