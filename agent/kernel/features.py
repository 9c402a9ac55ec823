"""What this kernel, with these privileges, lets gospan do: found out by trying, once.

A kernel can't be asked whether it is patched or what a security module will say, so each probe does the real
thing on a small scale: programs of two instructions, and uprobes on an anonymous file that nothing runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import mmap
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.kernel import instructions, libbpf, stats, syscalls
from agent.kernel.attach import Backend, attach, attach_raw_tracepoint
from agent.kernel.errors import KernelError, describe
from agent.kernel.maps import MapType
from agent.kernel.privileges import MissingCapability, lockdown, missing_capabilities

_CANNOT_LOAD = "Not known, since BPF programs can't be loaded."

_PID_NAMESPACE_OF_INIT = 0xEFFFFFFC
"""The inode number of the initial pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Feature:
    """Whether something works here, and a sentence for the administrator: what it gives or what it lacks."""

    works: bool
    sentence: str

    def __bool__(self) -> bool:
        return self.works


@dataclasses.dataclass(frozen=True, slots=True)
class PidNamespace:
    """The pid namespace of this process, as bpf_get_ns_current_pid_tgid(dev, ino) wants it."""

    initial: bool
    dev: int
    ino: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """All that was found out; `release` is (major, minor, patch)."""

    release: tuple[int, int, int]
    machine: str
    libbpf: str
    loading: Feature
    ring_buffer: Feature
    uprobe_multi: Feature
    uprobe_perf: Feature
    uprobe_tracefs: Feature
    cookies: Feature
    write_user: Feature
    loops: Feature
    raw_tracepoints: Feature
    btf: Feature
    jit: Feature
    run_time_stats: Feature
    memory_lock: Feature
    pid_namespace: PidNamespace
    pid_translation: Feature
    missing: tuple[MissingCapability, ...]

    def named(self) -> dict[str, Feature]:
        """Give the features by name, for a report."""
        found = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: value for name, value in found if isinstance(value, Feature)}

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The back-ends that work, best first; empty if no program can be attached."""
        works = {
            Backend.UPROBE_MULTI: self.uprobe_multi,
            Backend.PERF: self.uprobe_perf,
            Backend.TRACEFS: self.uprobe_tracefs,
        }
        return tuple(backend for backend in Backend if works[backend])

    def backend(self, forced: Backend | None = None) -> Backend:
        """Choose a back-end; raise KernelError saying why there is none, or why the forced one isn't."""
        if not self.loading:
            raise KernelError(self.loading.sentence)
        for backend in self.backends:
            if forced in (None, backend):
                return backend
        reasons = {
            Backend.UPROBE_MULTI: self.uprobe_multi.sentence,
            Backend.PERF: self.uprobe_perf.sentence,
            Backend.TRACEFS: self.uprobe_tracefs.sentence,
        }
        reason = reasons[forced] if forced else " ".join(reasons.values())
        raise KernelError(f"no program can be attached. {reason}")


@functools.cache
def features() -> Features:
    """Find out, at the first call, what works here; raise KernelError only if libbpf can't be loaded."""
    release = parse_release(os.uname().release)
    missing = missing_capabilities(Path("/proc/self/status").read_text(), release)
    memory_lock = _memory_lock(release)
    with _program() as program, _program(syscalls.BPF_TRACE_UPROBE_MULTI) as multi, _scratch_file() as path:
        uprobe_multi = _try_attach(Backend.UPROBE_MULTI, multi, path)
        return Features(
            release=release,
            machine=syscalls.machine(),
            libbpf=libbpf.version(),
            loading=_loading(program),
            ring_buffer=_ring_buffer(),
            uprobe_multi=uprobe_multi,
            uprobe_perf=_try_attach(Backend.PERF, program, path),
            uprobe_tracefs=_try_attach(Backend.TRACEFS, program, path),
            cookies=_cookies(program, path, linked=bool(uprobe_multi)),
            write_user=_write_user(program, missing),
            loops=_loops(program),
            raw_tracepoints=_raw_tracepoints(),
            btf=_btf(),
            jit=_jit(program),
            run_time_stats=_run_time_stats(),
            memory_lock=memory_lock,
            pid_namespace=pid_namespace(),
            pid_translation=_pid_translation(program),
            missing=missing,
        )


def parse_release(text: str) -> tuple[int, int, int]:
    """Give (5, 10, 0) for "5.10.0-30-cloud-amd64"; zeros for what isn't there."""
    numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", text, maxsplit=1)[0])]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch


def pid_namespace(path: str = "/proc/self/ns/pid") -> PidNamespace:
    """Give the pid namespace of this process; its device number is in the kernel's own encoding."""
    status = Path(path).stat()
    # dev_t is major << 20 | minor in the kernel, and not what stat(2) gives once the minor passes 255.
    dev = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return PidNamespace(status.st_ino == _PID_NAMESPACE_OF_INIT, dev, status.st_ino)


@dataclasses.dataclass(frozen=True, slots=True)
class _Loaded:
    """A program loaded for trying, or why it can't be."""

    fd: int
    error: KernelError | None


@contextlib.contextmanager
def _program(attach_type: int = 0, kind: int = syscalls.BPF_PROG_TYPE_KPROBE) -> Iterator[_Loaded]:
    try:
        fd = syscalls.program_load(instructions.RETURN_0, kind=kind, attach_type=attach_type)
    except KernelError as error:
        yield _Loaded(-1, error)
        return
    try:
        yield _Loaded(fd, None)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _scratch_file() -> Iterator[str]:
    """Make a file to attach to: a page of zeros in memory, which no process runs."""
    fd = os.memfd_create("gospan-probe", os.MFD_CLOEXEC)
    try:
        os.truncate(fd, mmap.PAGESIZE)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _feature(action: Callable[[], object], works: str, broken: str) -> Feature:
    """Try something; the reason of a failure goes behind the sentence for it."""
    try:
        action()
    except KernelError as error:
        return _failed(broken, error)
    return Feature(True, works)


def _failed(broken: str, error: KernelError) -> Feature:
    reason = describe(error.errno) if error.errno else error.message
    return Feature(False, f"{broken}: {reason}{error.hint and f' ({error.hint})'}.")


def _loads(program: _Loaded, instructions: bytes, works: str, broken: str) -> Feature:
    """Try to load instructions, if anything can be loaded at all."""
    if program.error is not None:
        return Feature(False, _CANNOT_LOAD)

    def once() -> None:
        os.close(syscalls.program_load(instructions, kind=syscalls.BPF_PROG_TYPE_KPROBE))

    return _feature(once, works, broken)


def _loading(program: _Loaded) -> Feature:
    if program.error is None:
        return Feature(True, "BPF programs can be loaded.")
    return Feature(
        False,
        f"BPF programs can't be loaded, so nothing can be traced: {describe(program.error.errno)} "
        "(CAP_BPF and CAP_PERFMON are needed, CAP_SYS_ADMIN before Linux 5.8).",
    )


def _ring_buffer() -> Feature:
    def create() -> None:
        page = mmap.PAGESIZE
        os.close(syscalls.map_create(MapType.RINGBUF, key_size=0, value_size=0, max_entries=page))

    return _feature(
        create,
        "Records come through one BPF ring buffer.",
        "No BPF ring buffer (Linux 5.8), records come through perf buffers, one for each processor",
    )


def _try_attach(backend: Backend, program: _Loaded, path: str) -> Feature:
    broken = f"No attaching by {backend.value}"
    if program.error is not None:
        # Kernels with uprobe_multi check the attach type while loading; some before it do, and some don't.
        if backend is Backend.UPROBE_MULTI and program.error.errno == errno.EINVAL:
            return Feature(False, f"{broken}, which kernels have since Linux 6.6.")
        return Feature(False, _CANNOT_LOAD)
    try:
        attach(backend, program.fd, path, [0]).close()
    except KernelError as error:
        if backend is Backend.UPROBE_MULTI and error.errno == errno.EINVAL:
            return Feature(False, f"{broken}, which kernels have since Linux 6.6.")
        return _failed(broken, error)
    return Feature(True, f"Probes can be attached by {backend.value}.")


def _cookies(program: _Loaded, path: str, *, linked: bool) -> Feature:
    works = "Probes carry a cookie, by which a program knows its executable."
    broken = "No attach cookies (Linux 5.15), programs look up their executable by process"
    helper = _loads(program, instructions.GET_COOKIE, works, broken)
    if linked or not helper:
        return helper

    def once() -> None:
        for backend in (Backend.PERF, Backend.TRACEFS):
            with contextlib.suppress(KernelError):
                attach(backend, program.fd, path, [0], [1]).close()
                return
        raise KernelError("no back-end attaches with a cookie")

    return _feature(once, works, broken)


def _write_user(program: _Loaded, missing: tuple[MissingCapability, ...]) -> Feature:
    state = lockdown()
    if state:
        reason = f"the kernel is locked down ({state})"
    elif any(one.name == "CAP_SYS_ADMIN" for one in missing):
        reason = "CAP_SYS_ADMIN is missing"
    else:
        reason = "the kernel seems to be locked down"
    return _loads(
        program,
        instructions.WRITE_USER,
        "Trace context can be written into outgoing requests.",
        f"Trace context can't be written into outgoing requests, {reason}",
    )


def _pid_translation(program: _Loaded) -> Feature:
    return _loads(
        program,
        instructions.TRANSLATE_PID,
        "Process numbers can be translated, gospan may run in a pid namespace of its own.",
        "Process numbers can't be translated (Linux 5.7), gospan has to run in the initial pid namespace",
    )


def _loops(program: _Loaded) -> Feature:
    """Ask libbpf, which finds what the verifier doesn't know; a call by hand would need types for it."""
    if program.error is not None:
        return Feature(False, _CANNOT_LOAD)
    if libbpf.has_helper(syscalls.BPF_PROG_TYPE_KPROBE, instructions.LOOP):
        return Feature(True, "Programs can loop (bpf_loop).")
    return Feature(False, "No bpf_loop (Linux 5.17), long walks are cut short earlier.")


def _raw_tracepoints() -> Feature:
    def once() -> None:
        with _program(kind=syscalls.BPF_PROG_TYPE_RAW_TRACEPOINT) as program:
            if program.error is not None:
                raise program.error
            attach_raw_tracepoint(program.fd, "sched_process_exec").close()

    return _feature(
        once,
        "New processes are noticed at once.",
        "No raw tracepoint, new processes are noticed by scanning /proc",
    )


def _btf() -> Feature:
    path = Path("/sys/kernel/btf/vmlinux")
    if path.exists():
        return Feature(True, "The kernel describes its types (BTF).")
    return Feature(
        False, f"{path} is missing (CONFIG_DEBUG_INFO_BTF): programs that need kernel types are off."
    )


def _jit(program: _Loaded) -> Feature:
    if program.error is not None:
        return Feature(False, _CANNOT_LOAD)
    if stats.program_stats(program.fd).machine_code:
        return Feature(True, "Programs run as machine code.")
    return Feature(False, "Programs are interpreted, which is slow: sysctl net.core.bpf_jit_enable=1.")


def _run_time_stats() -> Feature:
    def once() -> None:
        with stats.counted():
            pass

    return _feature(once, "Run times of programs can be counted.", "Run times of programs can't be counted")


def _memory_lock(release: tuple[int, int, int]) -> Feature:
    """Raise the limit of locked memory before 5.11, which counted BPF memory against it."""
    if release >= (5, 11, 0):
        return Feature(True, "BPF memory is accounted to the service's cgroup.")
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    if resource.getrlimit(resource.RLIMIT_MEMLOCK) != infinite:
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, infinite)
        except (ValueError, OSError):
            limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
            return Feature(
                False, f"BPF memory is limited to {limit} bytes of locked memory: set LimitMEMLOCK=infinity."
            )
    return Feature(True, "Locked memory is not limited.")
