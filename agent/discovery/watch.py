"""Watching executable files that have probes in them.

A file that nothing runs may be written over in place. The kernel goes on putting breakpoints where the old program had
its functions, and would execute the old instructions in the new program's midst; so the probes of a file have to come
off before a new program in it can start.

A read lease (fcntl(2), F_SETLEASE) makes that certain: whoever opens the file for writing, or truncates it, waits until
the lease is given back, and the kernel tells us by a signal. On file systems that have no leases inotify tells when it
is written already: then a program that starts within the tenth of a second that it takes to detach may crash.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import signal
import struct

IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_DELETE_SELF = 0x400
"""include/uapi/linux/inotify.h"""

_EVENT = struct.Struct("<iIII")


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.inotify_init1.argtypes = [ctypes.c_int]
    libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
    libc.inotify_rm_watch.argtypes = [ctypes.c_int, ctypes.c_int]
    return libc


def _checked(result: int, path: str | None = None) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


def lease(fd: int) -> None:
    """Have writers wait from now on, until this open file is closed. Raises OSError.

    BlockingIOError: it is open for writing now. PermissionError: it is another user's, and CAP_LEASE is needed.
    """
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)


def is_awaited(fd: int) -> bool:
    """Whether a writer waits for the end of the lease on this open file."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK


class FileWatch:
    """One inotify instance; readable, by its descriptor, when a watched file was written to or removed.

    While it is open, the signal that a writer waits (SIGIO) does no more than interrupt. Only for the main thread.
    """

    def __init__(self) -> None:
        self._fd = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._signal = signal.signal(signal.SIGIO, lambda *_: None)

    def fileno(self) -> int:
        """Give the descriptor for poll(2)."""
        return self._fd

    def add(self, path: str) -> int:
        """Watch the file that `path` leads to, and give the number by which `changed` tells of it. Raises OSError."""
        mask = IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF
        return _checked(_libc().inotify_add_watch(self._fd, os.fsencode(path), mask), path)

    def remove(self, number: int) -> None:
        """Stop watching a file; nothing happens if it is gone already."""
        _libc().inotify_rm_watch(self._fd, number)

    def changed(self) -> dict[int, int]:
        """Give what happened since the last call: the IN_ bits, by the file's number."""
        found: dict[int, int] = {}
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return found
        position = 0
        while position + _EVENT.size <= len(data):
            number, mask, _, name_length = _EVENT.unpack_from(data, position)
            found[number] = found.get(number, 0) | mask
            position += _EVENT.size + name_length
        return found

    def close(self) -> None:
        """Stop watching everything; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            signal.signal(signal.SIGIO, self._signal)
