"""A full memory barrier that Python code can call."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable


def _nothing() -> None:
    """Do nothing: on x86-64 loads stay in order, and no store passes an earlier load (Intel SDM 3A 9.2.2)."""


def _semaphore_barrier() -> Callable[[], None]:
    """Build a barrier of sem_post and sem_trywait.

    There is no fence that libc exports. But sem_post is a store-release and the sem_trywait after it a
    load-acquire, and arm64 orders everything before a release, that release, a later acquire, and everything
    after it (Arm ARM B2.3 "barrier-ordered-before"; RCsc). membarrier(2) is no substitute: for a process of
    one thread it returns without a barrier.
    """
    libc = ctypes.CDLL(None)
    post, take = libc.sem_post, libc.sem_trywait
    post.argtypes = take.argtypes = (ctypes.c_void_p,)
    post.restype = take.restype = ctypes.c_int
    libc.sem_init.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
    semaphore = ctypes.create_string_buffer(64)  # sizeof(sem_t) is 32 on 64-bit glibc
    libc.sem_init(semaphore, 0, 0)

    def barrier() -> None:
        post(semaphore)
        take(semaphore)

    return barrier


def full_barrier(machine: str | None = None) -> Callable[[], None]:
    """Give the function that orders every access before it against every access after it.

    Needed by readers of memory that the kernel writes meanwhile: ring.py and perf.py. Only loads against
    loads and loads against stores matter there, so on x86-64 the function does nothing.
    """
    return _nothing if (machine or os.uname().machine) == "x86_64" else _semaphore_barrier()
