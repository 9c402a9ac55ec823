"""What a guest must offer before the project can be tested in it; run there as `python -m tests.vm.check`.

Nothing has to be compiled for it: it loads two BPF instructions, and counts calls of a function of libc.
"""

# ruff: noqa: T201 (a program for the terminal)

import ctypes
import importlib
import os
import platform
import struct
import sys
from pathlib import Path

# linux/bpf.h
_PROG_TYPE_KPROBE = 2
_MAP_TYPE_RINGBUF = 27
_MAP_TYPE_PERF_EVENT_ARRAY = 4
# Numbers of the system call, from asm/unistd_64.h and asm-generic/unistd.h.
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_RETURN_0 = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # r0 = 0; exit


def main() -> int:
    """Print one line for each thing looked at; 1 if one is missing, else 0."""
    print(f"kernel {platform.release()} {platform.machine()}, Python {platform.python_version()}")
    findings = {
        "kernel BTF": Path("/sys/kernel/btf/vmlinux").exists(),
        "tracefs": Path("/sys/kernel/tracing/uprobe_events").exists(),
        "uprobe PMU": Path("/sys/bus/event_source/devices/uprobe/type").exists(),
        "bpffs": os.path.ismount("/sys/fs/bpf"),
        "cgroup v2": Path("/sys/fs/cgroup/cgroup.controllers").exists(),
        "no lockdown": _no_lockdown(),
        "loopback": _loopback_up(),
        "dependencies": _imports("elftools", "grpc", "opentelemetry.sdk", "psutil", "structlog"),
        **_bpf(),
        "uprobes on these files": _calls_counted(100) == 100,
    }
    for what, found in findings.items():
        print(f"  {what}: {'yes' if found else 'NO'}")
    return 0 if all(findings.values()) else 1


def _bpf() -> dict[str, bool]:
    """What bpf(2) can do through the system's libbpf, called as in libbpf 1.0's bpf.h."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    libbpf.bpf_prog_load.argtypes = [
        ctypes.c_int,  # type
        ctypes.c_char_p,  # name
        ctypes.c_char_p,  # license
        ctypes.c_char_p,  # instructions
        ctypes.c_size_t,  # number of instructions
        ctypes.c_void_p,  # options
    ]
    libbpf.bpf_map_create.argtypes = [
        ctypes.c_int,  # type
        ctypes.c_char_p,  # name
        ctypes.c_uint32,  # size of a key
        ctypes.c_uint32,  # size of a value
        ctypes.c_uint32,  # entries
        ctypes.c_void_p,  # options
    ]
    program = libbpf.bpf_prog_load(
        _PROG_TYPE_KPROBE, b"nothing", b"GPL", _RETURN_0, len(_RETURN_0) // 8, None
    )
    return {
        "program loaded": program >= 0,
        "ring buffer": libbpf.bpf_map_create(_MAP_TYPE_RINGBUF, b"ring", 0, 0, 4096, None) >= 0,
        "perf buffer": libbpf.bpf_map_create(_MAP_TYPE_PERF_EVENT_ARRAY, b"perf", 4, 4, 1, None) >= 0,
    }


def _calls_counted(calls: int) -> int:
    """How many of `calls` to a function of libc a uprobe sees.

    The guest's files are an overlay on a FUSE file system: the probe has to reach the file that is mapped.
    """
    libc = ctypes.CDLL("libc.so.6", use_errno=True)
    address = ctypes.cast(libc.getppid, ctypes.c_void_p).value or 0
    path, offset = _mapped(address)
    name = ctypes.create_string_buffer(path.encode())
    pmu = int(Path("/sys/bus/event_source/devices/uprobe/type").read_text())
    # struct perf_event_attr of linux/perf_event.h, version 1: type, size, config, period, sample type, read
    # format, flags, wakeup, breakpoint type, address of the path, offset in the file
    attributes = struct.pack("<IIQQQQQIIQQ", pmu, 72, 0, 0, 0, 0, 0, 0, 0, ctypes.addressof(name), offset)
    descriptor = libc.syscall(_PERF_EVENT_OPEN[platform.machine()], attributes, 0, -1, -1, 0)
    if descriptor < 0:
        print(f"  perf_event_open: {os.strerror(ctypes.get_errno())}")
        return 0
    for _ in range(calls):
        libc.getppid()
    return int.from_bytes(os.read(descriptor, 8), sys.byteorder)


def _mapped(address: int) -> tuple[str, int]:
    """The file that is mapped at `address`, and the offset in it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in fields[0].split("-"))
        if start <= address < end:
            return fields[5], address - start + int(fields[2], 16)
    raise LookupError(f"nothing is mapped at {address:#x}")


def _no_lockdown() -> bool:
    """Lockdown forbids writing into a traced program, so that it could not be tested."""
    lockdown = Path("/sys/kernel/security/lockdown")
    return not lockdown.exists() or "[none]" in lockdown.read_text()


def _loopback_up() -> bool:
    return bool(int(Path("/sys/class/net/lo/flags").read_text(), 16) & 1)  # IFF_UP


def _imports(*names: str) -> bool:
    for name in names:
        importlib.import_module(name)
    return True


if __name__ == "__main__":
    sys.exit(main())
