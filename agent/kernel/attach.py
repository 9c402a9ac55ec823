"""A uprobe program at places of an executable, for all processes that run it, by one of three back-ends.

uprobe_multi (Linux 6.6): one link for all places. perf: one perf event for each place, linked with a cookie
(5.15) or by ioctl. tracefs: the same, but the event is made by writing to `uprobe_events`, which needs other
privileges. Which of them works here is found by features.py; the order of choice is that of `Backend`.

The kernel holds on to the file itself, so an attachment outlives the path and the process it was found by,
and the file can be replaced or deleted. A place whose instruction can't carry a probe is refused at attaching
only if some process maps the file at that time; otherwise the kernel skips it silently later.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from agent.kernel import libbpf, syscalls, tracefs
from agent.kernel.errors import ENOTSUPP, KernelError

_WHOLE = frozenset((errno.EPERM, errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Errors that are not about one place: trying the next ones is of no use."""


class Backend(enum.Enum):
    """How a program gets to its places, best first."""

    UPROBE_MULTI = "uprobe_multi"
    PERF = "perf"
    TRACEFS = "tracefs"

    @property
    def attach_type(self) -> int:
        """The expected attach type with which programs have to be loaded for this back-end."""
        return syscalls.BPF_TRACE_UPROBE_MULTI if self is Backend.UPROBE_MULTI else 0


class AttachError(KernelError):
    """A program can't be attached; `offsets` are the file offsets that were refused, empty if it was all."""

    def __init__(self, message: str, *, errno: int, hint: str, offsets: tuple[int, ...] = ()) -> None:
        super().__init__(message, errno=errno, hint=hint)
        self.offsets = offsets


class Attachment:
    """A program attached, until `close`."""

    def __init__(self, descriptors: Sequence[int], cleanup: Callable[[], None] | None = None) -> None:
        self._descriptors = list(descriptors)
        self._cleanup = cleanup

    def add(self, descriptor: int) -> None:
        """Take one more descriptor; it is closed with the others."""
        self._descriptors.append(descriptor)

    @property
    def descriptors(self) -> int:
        """How many descriptors it holds."""
        return len(self._descriptors)

    def close(self) -> None:
        """Detach from all places.

        The kernel waits until no processor can be in the program: some 40 ms for a uprobe_multi link of any
        number of places, but 100 ms for each place of the other back-ends.
        """
        while self._descriptors:
            os.close(self._descriptors.pop())
        if self._cleanup is not None:
            cleanup, self._cleanup = self._cleanup, None
            cleanup()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attach(
    backend: Backend,
    program_fd: int,
    path: str,
    offsets: Sequence[int],
    cookies: Sequence[int] | None = None,
    *,
    tracing: tracefs.Tracefs | None = None,
) -> Attachment:
    """Attach a program at file offsets of an executable: all of them, or none and an AttachError.

    `path` may be a symbolic link of /proc, such as /proc/PID/exe. `cookies`, one for each offset, are what
    bpf_get_attach_cookie() gives; None means none, for kernels without them. `tracing` is where the tracefs
    back-end makes its events. Descriptors held: 1 with uprobe_multi, else one for each offset.
    """
    if not offsets:
        raise ValueError("no offsets to attach to")
    if cookies is not None and len(cookies) != len(offsets):
        raise ValueError(f"{len(cookies)} cookies for {len(offsets)} offsets")
    with _held(path) as steady:
        match backend:
            case Backend.UPROBE_MULTI:
                return _attach_multi(program_fd, path, steady, offsets, cookies or [0] * len(offsets))
            case Backend.PERF:
                kind = _uprobe_pmu()
                cpu = online_cpus()[0]

                def open_perf(offset: int) -> int:
                    return syscalls.perf_event_uprobe(steady, offset, pmu=kind, cpu=cpu)

                return _attach_events(backend, program_fd, path, open_perf, offsets, cookies)
            case Backend.TRACEFS:
                return _attach_tracefs(program_fd, path, steady, offsets, cookies, tracing or tracefs.find())


def attach_raw_tracepoint(program_fd: int, name: str) -> Attachment:
    """Attach a raw tracepoint program, such as to "sched_process_exec"; raise KernelError."""
    try:
        return Attachment([libbpf.raw_tracepoint_open(name, program_fd)])
    except KernelError as error:
        error.hint = error.hint or _hint(None, error.errno)
        raise


@contextlib.contextmanager
def _held(path: str) -> Iterator[str]:
    """Open the file and give a path that leads to it whatever happens to `path` meanwhile.

    An O_PATH descriptor needs no right to read, and its link in /proc/self/fd is followed by all three
    back-ends; it has no blanks, at which the kernel would cut a definition in uprobe_events.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        hint = "CAP_SYS_PTRACE is needed for files of other processes" if error.errno == errno.EACCES else ""
        raise AttachError(f"cannot open {path}", errno=error.errno or 0, hint=hint) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise AttachError(f"cannot attach to {path}: it is no regular file", errno=0, hint="")
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _attach_multi(
    program_fd: int, path: str, steady: str, offsets: Sequence[int], cookies: Sequence[int]
) -> Attachment:
    try:
        return Attachment([syscalls.link_uprobe_multi(program_fd, steady, offsets, cookies)])
    except KernelError as error:
        refused: tuple[int, ...] = ()
        if error.errno not in (errno.EPERM, errno.EACCES):
            # The kernel doesn't say which one, so ask for each alone.
            refused = tuple(one for one in offsets if not _takes(program_fd, steady, one))
        raise _error(Backend.UPROBE_MULTI, path, error.errno, refused) from None


def _takes(program_fd: int, steady: str, offset: int) -> bool:
    try:
        os.close(syscalls.link_uprobe_multi(program_fd, steady, [offset], [0]))
    except KernelError:
        return False
    return True


def _attach_events(
    backend: Backend,
    program_fd: int,
    path: str,
    open_event: Callable[[int], int],
    offsets: Sequence[int],
    cookies: Sequence[int] | None,
    cleanup: Callable[[], None] | None = None,
) -> Attachment:
    """Open an event for each place and run the program on it; go on after a refusal to name all of them."""
    attachment = Attachment([], cleanup)
    refused: list[int] = []
    code = 0
    none: Sequence[int | None] = [None] * len(offsets)
    for offset, cookie in zip(offsets, none if cookies is None else cookies, strict=True):
        try:
            attachment.add(_run_on(open_event(offset), program_fd, cookie))
        except KernelError as error:
            refused.append(offset)
            code = error.errno
            if code in _WHOLE:
                refused.clear()
                break
    if code:
        attachment.close()
        raise _error(backend, path, code, tuple(refused))
    return attachment


def _run_on(event: int, program_fd: int, cookie: int | None) -> int:
    """Run a program on a perf event and give the descriptor that keeps it so."""
    if cookie is not None:
        try:
            return syscalls.link_perf(program_fd, event, cookie)
        finally:
            os.close(event)  # the link holds it
    try:
        syscalls.perf_event_set_program(event, program_fd)
        syscalls.perf_event_enable(event)
    except KernelError:
        os.close(event)
        raise
    return event


def _attach_tracefs(
    program_fd: int,
    path: str,
    steady: str,
    offsets: Sequence[int],
    cookies: Sequence[int] | None,
    tracing: tracefs.Tracefs,
) -> Attachment:
    names: list[str] = []

    def open_event(offset: int) -> int:
        name = tracing.add_uprobe(steady, offset)
        names.append(name)
        return syscalls.perf_event_tracepoint(tracing.number(name), cpu=online_cpus()[0])

    def cleanup() -> None:
        while names:
            tracing.remove(names.pop())

    return _attach_events(Backend.TRACEFS, program_fd, path, open_event, offsets, cookies, cleanup)


def _uprobe_pmu() -> int:
    """Give the number of the perf event type "uprobe", which kernels with CONFIG_UPROBE_EVENTS have."""
    path = Path("/sys/bus/event_source/devices/uprobe/type")
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        raise AttachError(
            f"{path} cannot be read",
            errno=errno.EOPNOTSUPP,
            hint="mount sysfs; the kernel needs CONFIG_UPROBE_EVENTS",
        ) from None


def online_cpus() -> tuple[int, ...]:
    """Give the numbers of the processors that are online."""
    return parse_cpus(Path("/sys/devices/system/cpu/online").read_text())


def parse_cpus(text: str) -> tuple[int, ...]:
    """Give the numbers in a list such as "0-3,8"."""
    numbers: list[int] = []
    for part in re.split(r"[,\s]+", text.strip()):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)


def _error(backend: Backend, path: str, code: int, offsets: tuple[int, ...]) -> AttachError:
    places = ", ".join(hex(offset) for offset in offsets)
    where = f"{path} at {places}" if places else path
    return AttachError(
        f"cannot attach to {where} by {backend.value}", errno=code, hint=_hint(backend, code), offsets=offsets
    )


def _hint(backend: Backend | None, code: int) -> str:
    if code in (errno.EPERM, errno.EACCES):
        if backend is Backend.PERF:
            paranoid = _setting("/proc/sys/kernel/perf_event_paranoid")
            return (
                "CAP_SYS_ADMIN is needed by kernels of mid 2025 and later, CAP_PERFMON by those before, "
                f"or kernel.perf_event_paranoid=-1 (it is {paranoid})"
            )
        return "CAP_BPF and CAP_PERFMON are needed, and a kernel that isn't locked down for confidentiality"
    if code in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, ENOTSUPP, errno.EIO):
        return "the offset lies outside of the file, or its instruction can't carry a probe"
    if code == errno.EMFILE:
        return "too many open files; raise LimitNOFILE of the service"
    return ""


def _setting(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "unknown"
