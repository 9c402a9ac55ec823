"""The first file system of a guest: a cpio archive, made in memory."""

import gzip
import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a directory of the archive, by its path without a leading slash."""

    path: str
    content: bytes = b""
    mode: int = stat.S_IFREG | 0o755


def directory(path: str) -> Entry:
    """An empty directory."""
    return Entry(path, mode=stat.S_IFDIR | 0o755)


def cpio(entries: Iterable[Entry]) -> bytes:
    """Pack `entries` in the kernel's "newc" format. Directories must come before what is in them.

    The kernel's Documentation/driver-api/early-userspace/buffer-format.rst describes the format.
    """
    packed = bytearray()
    for number, entry in enumerate([*entries, Entry(_TRAILER, mode=0)], start=1):
        name = entry.path.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, dev and rdev (major, minor), length of the name, checksum
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        packed += b"070701" + b"".join(b"%08X" % field for field in fields)
        packed += name
        packed += bytes(-len(packed) % 4)
        packed += entry.content
        packed += bytes(-len(packed) % 4)
    return bytes(packed)


def compress(archive: bytes) -> bytes:
    """The archive as the kernel takes it. Fast rather than small: it is used once."""
    return gzip.compress(archive, compresslevel=1)
