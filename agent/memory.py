"""Giving memory back: the agent is small between its peaks, and should look it."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Return to the kernel what planning an executable has left free: several MB, as malloc_trim(3) finds them."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other C libraries need no telling
    if trim is not None:
        trim(ctypes.c_size_t(0))
