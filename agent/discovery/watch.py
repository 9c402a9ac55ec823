"""Watching executable files that have probes in them.

A file that nothing runs may be written over in place. The kernel keeps the instructions that it replaced when a probe
was attached, and would put them back into the new program's midst; so the probes of a file come off as soon as it is
written to. The kernel refuses to execute a file that is open for writing (ETXTBSY), so this is before the first start.
"""

from __future__ import annotations

import ctypes
import functools
import os
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


class FileWatch:
    """One inotify instance; readable, by its descriptor, when a watched file was written to or removed."""

    def __init__(self) -> None:
        self._fd = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

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
