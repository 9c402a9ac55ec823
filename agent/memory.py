"""Giving memory back: the agent is small between its peaks, and should look it."""

from __future__ import annotations

import ctypes
import gc

# malloc.h of glibc; other C libraries need no telling.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_SETTINGS = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 4 << 20), (_M_TRIM_THRESHOLD, 8 << 20))
"""Batches of records and requests are a few hundred KB: were each mapped anew, its pages would be faulted in each time,
a sixth of what a span costs. What is free between them is given back when the processes have been looked through."""


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
    _trim()


def give_back() -> None:
    """Return to the kernel what planning an executable has left free: several MB, as malloc_trim(3) finds them."""
    gc.collect()
    _trim()


def _trim() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
