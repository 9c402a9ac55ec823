"""What programs cost: how often they ran and for how long, counted by the kernel while it is asked to."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from agent.kernel import libbpf
from agent.kernel.errors import KernelError

_SYSCTL = Path("/proc/sys/kernel/bpf_stats_enabled")


class _ProgInfo(ctypes.Structure):
    """struct bpf_prog_info as of Linux 5.16; an older kernel fills less of it."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("gpl_compatible", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("nr_jited_ksyms", ctypes.c_uint32),
        ("nr_jited_func_lens", ctypes.c_uint32),
        ("jited_ksyms", ctypes.c_uint64),
        ("jited_func_lens", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", ctypes.c_uint32),
        ("nr_line_info", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("jited_line_info", ctypes.c_uint64),
        ("nr_jited_line_info", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("jited_line_info_rec_size", ctypes.c_uint32),
        ("nr_prog_tags", ctypes.c_uint32),
        ("prog_tags", ctypes.c_uint64),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
        ("attach_btf_obj_id", ctypes.c_uint32),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ProgramStats:
    """One program: its number in the kernel, size of its machine code in bytes (0: interpreted), and runs.

    `runs` and `run_time_ns` grow only while statistics are enabled. `misses` are runs skipped because the
    program was already running on that processor (5.12). `verified` are the instructions that the verifier went
    through, one as often as it came there (5.16, else 0).
    """

    number: int
    machine_code: int
    runs: int
    run_time_ns: int
    misses: int
    verified: int


def program_stats(program_fd: int) -> ProgramStats:
    """Read what the kernel knows of a program; raise KernelError."""
    info = _ProgInfo()
    libbpf.object_info(program_fd, info)
    return ProgramStats(
        info.id,
        info.jited_prog_len,
        info.run_cnt,
        info.run_time_ns,
        info.recursion_misses,
        info.verified_insns,
    )


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Have the kernel count runs and run times of all programs while the block runs (Linux 5.8).

    That costs each run some 20 ns, so the daemon does it only when asked. Raise KernelError; before 5.8 only
    the system-wide setting kernel.bpf_stats_enabled counts, and if it is on, this does nothing.
    """
    try:
        fd = libbpf.enable_stats()
    except KernelError as error:
        if error.errno == errno.EINVAL and _SYSCTL.exists():
            if _SYSCTL.read_text().strip() == "1":
                yield
                return
            error.hint = "before Linux 5.8: sysctl kernel.bpf_stats_enabled=1"
        elif error.errno == errno.EPERM:
            error.hint = "CAP_SYS_ADMIN is needed"
        raise
    try:
        yield
    finally:
        os.close(fd)
