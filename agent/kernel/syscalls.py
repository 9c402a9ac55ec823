"""The raw system calls that libbpf 1.1 has no call for, or none for what is needed here.

This file imports nothing of this package but its exception. Structures are prefixes of the kernel's
`union bpf_attr` and `struct perf_event_attr` (include/uapi/linux/bpf.h, perf_event.h): the kernel takes a
shorter one and reads the rest as zero.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

from agent.kernel.errors import KernelError

# The number of each call (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
_NUMBERS = {"x86_64": {"bpf": 321, "perf_event_open": 298}, "aarch64": {"bpf": 280, "perf_event_open": 241}}

# enum bpf_cmd
_BPF_MAP_CREATE = 0
_BPF_PROG_LOAD = 5
_BPF_LINK_CREATE = 28

# enum bpf_attach_type
_BPF_PERF_EVENT = 41
BPF_TRACE_UPROBE_MULTI = 48

# enum bpf_prog_type
BPF_PROG_TYPE_KPROBE = 2
BPF_PROG_TYPE_RAW_TRACEPOINT = 17

# enum perf_type_id, perf_sw_ids, perf_event_sample_format, and perf's ioctls
PERF_TYPE_SOFTWARE = 1
PERF_TYPE_TRACEPOINT = 2
PERF_COUNT_SW_BPF_OUTPUT = 10
PERF_SAMPLE_RAW = 1 << 10
PERF_FLAG_WATERMARK = 1 << 14
"""The bit `watermark` among the flags of perf_event_attr: wake up by bytes, not by events."""
_PERF_FLAG_FD_CLOEXEC = 1 << 3
_PERF_EVENT_IOC_ENABLE = 0x2400
_PERF_EVENT_IOC_SET_BPF = 0x40042408


class _MapCreate(ctypes.Structure):
    _fields_ = (
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
    )


class _ProgLoad(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
    )


class _LinkPerf(ctypes.Structure):
    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("bpf_cookie", ctypes.c_uint64),
    )


class _LinkUprobeMulti(ctypes.Structure):
    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("path", ctypes.c_uint64),
        ("offsets", ctypes.c_uint64),
        ("ref_ctr_offsets", ctypes.c_uint64),
        ("cookies", ctypes.c_uint64),
        ("cnt", ctypes.c_uint32),
        ("multi_flags", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
    )


class PerfEventAttr(ctypes.Structure):
    """struct perf_event_attr up to config2 (PERF_ATTR_SIZE_VER1, 72 bytes)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup", ctypes.c_uint32),  # events, or bytes with PERF_FLAG_WATERMARK
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
        ("config2", ctypes.c_uint64),
    )


def machine() -> str:
    """Give the machine's architecture as the kernel names it: x86_64 or aarch64."""
    return os.uname().machine


@functools.cache
def _syscall() -> Callable[..., int]:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call


def _invoke(name: str, *arguments: Any) -> int:
    """Make a call; give its result, or minus the errno."""
    numbers = _NUMBERS.get(machine())
    if numbers is None:
        raise KernelError(
            f"the architecture {machine()} is not supported", hint="gospan runs on x86_64 and aarch64"
        )
    result = _syscall()(ctypes.c_long(numbers[name]), *arguments)
    return result if result >= 0 else -ctypes.get_errno()


def _bpf(command: int, attribute: ctypes.Structure) -> int:
    size = ctypes.sizeof(attribute)
    return _invoke("bpf", ctypes.c_int(command), ctypes.byref(attribute), ctypes.c_uint(size))


def map_create(kind: int, *, key_size: int, value_size: int, max_entries: int) -> int:
    """Create a map without a name and give its descriptor; raise KernelError."""
    attribute = _MapCreate(kind, key_size, value_size, max_entries)
    fd = _bpf(_BPF_MAP_CREATE, attribute)
    if fd < 0:
        raise KernelError(f"cannot create a BPF map of type {kind}", errno=-fd)
    return fd


def program_load(instructions: bytes, *, kind: int, attach_type: int = 0) -> int:
    """Load a program of a few handwritten instructions (8 bytes each) and give its descriptor.

    The verifier's log isn't asked for: this is for trying whether something is there at all.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    attribute = _ProgLoad(
        prog_type=kind,
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(licence),
        expected_attach_type=attach_type,
    )
    fd = _bpf(_BPF_PROG_LOAD, attribute)
    if fd < 0:
        raise KernelError(f"cannot load a BPF program of type {kind}", errno=-fd)
    return fd


def link_perf(program_fd: int, event_fd: int, cookie: int) -> int:
    """Link a program to a perf event with an attach cookie (Linux 5.15) and give the link's descriptor.

    The link holds the event: its own descriptor may be closed.
    """
    fd = _bpf(_BPF_LINK_CREATE, _LinkPerf(program_fd, event_fd, _BPF_PERF_EVENT, 0, cookie))
    if fd < 0:
        raise KernelError("cannot link a program to a perf event", errno=-fd)
    return fd


def link_uprobe_multi(program_fd: int, path: str, offsets: Sequence[int], cookies: Sequence[int]) -> int:
    """Link a program to many file offsets of one executable, for all processes (Linux 6.6).

    The program has to be loaded with the expected attach type BPF_TRACE_UPROBE_MULTI. All or nothing; the
    kernel doesn't tell which offset it refused.
    """
    array = ctypes.c_uint64 * len(offsets)
    name = ctypes.create_string_buffer(os.fsencode(path))
    places, values = array(*offsets), array(*cookies)
    attribute = _LinkUprobeMulti(
        prog_fd=program_fd,
        attach_type=BPF_TRACE_UPROBE_MULTI,
        path=ctypes.addressof(name),
        offsets=ctypes.addressof(places),
        cookies=ctypes.addressof(values),
        cnt=len(offsets),
    )
    fd = _bpf(_BPF_LINK_CREATE, attribute)
    if fd < 0:
        raise KernelError("cannot link a program to uprobes", errno=-fd)
    return fd


def perf_event_open(attribute: PerfEventAttr, *, cpu: int) -> int:
    """Open a perf event for all processes on one processor and give its descriptor."""
    attribute.size = ctypes.sizeof(attribute)
    fd = _invoke(
        "perf_event_open",
        ctypes.byref(attribute),
        ctypes.c_int(-1),
        ctypes.c_int(cpu),
        ctypes.c_int(-1),
        ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC),
    )
    if fd < 0:
        raise KernelError("cannot open a perf event", errno=-fd)
    return fd


def perf_event_uprobe(path: str, offset: int, *, pmu: int, cpu: int) -> int:
    """Open a perf event that fires at a file offset of `path`; `pmu` is the type of the uprobe PMU."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    attribute = PerfEventAttr(type=pmu, config1=ctypes.addressof(name), config2=offset)
    return perf_event_open(attribute, cpu=cpu)


def perf_event_tracepoint(number: int, *, cpu: int) -> int:
    """Open a perf event for the tracepoint of that number (the file `id` in tracefs)."""
    return perf_event_open(PerfEventAttr(type=PERF_TYPE_TRACEPOINT, config=number), cpu=cpu)


def perf_event_set_program(event_fd: int, program_fd: int) -> None:
    """Run a program whenever the event fires, without a cookie; kernels before 5.15."""
    try:
        fcntl.ioctl(event_fd, _PERF_EVENT_IOC_SET_BPF, program_fd)
    except OSError as error:
        raise KernelError("cannot run a program on a perf event", errno=error.errno or 0) from None


def perf_event_enable(event_fd: int) -> None:
    """Let the event fire."""
    try:
        fcntl.ioctl(event_fd, _PERF_EVENT_IOC_ENABLE, 0)
    except OSError as error:
        raise KernelError("cannot enable a perf event", errno=error.errno or 0) from None
