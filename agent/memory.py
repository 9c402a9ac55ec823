"""Giving memory back: the agent is small between its peaks, and should look it."""

from __future__ import annotations

import ctypes
import gc
import mmap
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# malloc.h of glibc; other C libraries need no telling.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_SETTINGS = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 4 << 20), (_M_TRIM_THRESHOLD, 8 << 20))
"""Batches of records and requests are a few hundred KB: were each mapped anew, its pages would be faulted in each time,
a sixth of what a span costs. What is free between them is given back when the processes have been looked through."""


_SELDOM_USED = "libcapstone.so"
"""The disassembler: only an executable that has not been met before is read with it."""

_MAPPING = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) (r-.p) \S+ \S+ \d+ +(\S+)\n(?:\w+: .*\n)*?Anonymous: +(\d+) kB$", re.MULTILINE
)
"""A mapping that can't be written to in /proc/self/smaps: its ends, how it may be used, its file, and what is no longer
the file's of it (proc_pid_smaps(5))."""


def keep_small() -> None:
    """Have malloc use one arena for all threads: mallopt(3).

    gRPC's threads would each get an arena of their own, 3 MB together; they wait for the collector most of the time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _SETTINGS:
            mallopt(parameter, value)


def settle() -> None:
    """Give back what the start has left free; what is there now stays, and is not looked through for garbage again.

    That takes a tenth of a second else, each time: most of what the agent does at rest.
    """
    gc.collect()
    gc.freeze()
    give_back()


def give_back() -> None:
    """Return to the kernel what planning an executable has left: several MB that are free, which malloc_trim(3) finds,
    and 4 MB of the disassembler's file, which come back from the page cache when they are needed again.
    """
    gc.collect()
    _trim()
    _let_go(_SELDOM_USED)


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _let_go(library: str) -> None:
    """Unmap the pages of a shared library that are as they are in its file: madvise(2), MADV_DONTNEED."""
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is not None:
        for address, length in _unchanged(library):
            madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


@cache
def _unchanged(library: str) -> tuple[tuple[int, int], ...]:
    """Where a library that has been loaded has its code and constants: addresses and lengths in bytes.

    What relocations have changed, and must stay, is in mappings of its own (`Anonymous` in smaps). Looked for once, as
    the kernel counts every page for it.
    """
    return tuple(_mappings(library))


def _mappings(library: str) -> Iterator[tuple[int, int]]:
    for start, end, _, file, anonymous in _MAPPING.findall(Path("/proc/self/smaps").read_text()):
        if Path(file).name == library and anonymous == "0":
            yield int(start, 16), int(end, 16) - int(start, 16)
