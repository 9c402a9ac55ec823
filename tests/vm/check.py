"""What a guest must offer before the project can be tested in it; run there as `python -m tests.vm.check`.

Nothing has to be compiled for it: it loads two BPF instructions.
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
