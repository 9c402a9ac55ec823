"""Bounded reads from one open file.

The file is read with pread and not mapped: a mapped file that somebody truncates kills its reader by SIGBUS, and for
the bulk passes made here pread into a warm buffer is the faster of the two as well (15 MB: 2.3 ms against 4.9 ms).
"""

import os
import stat
from types import TracebackType

from agent.executable.errors import CorruptError, ExecutableError, NotGoError

MAX_READ = 64 << 20
"""The largest single read, in bytes. The largest table of a 75 MB server has 20 MB."""

_BLOCK = 4096
_BLOCKS = 1024


class Source:
    """A regular file, open for reading. Small reads go through a cache of at most 4 MB."""

    def __init__(self, path: str, fd: int | None = None) -> None:
        """Open `path`, or take over a duplicate of `fd`; `path` then only names it in messages.

        Raises ExecutableError if the file can't be opened or isn't a regular file.
        """
        self.path = path
        self._blocks: dict[int, bytes] = {}
        try:
            # O_NONBLOCK: a FIFO must not stop the agent; it is refused below.
            self._fd = (
                os.dup(fd) if fd is not None else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ExecutableError(f"can't be opened: {reason}", path=path) from error
        status = os.fstat(self._fd)
        self.size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise NotGoError("is no regular file", path=path)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._blocks.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at file offset `offset`.

        Raises CorruptError if they are not all in the file or more than MAX_READ, ExecutableError if it can't be read.
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise CorruptError(f"{size} bytes at offset {offset:#x} lie outside the file ({self.size} bytes)")
        if size > MAX_READ:
            raise CorruptError(
                f"a table of {size} bytes at offset {offset:#x} is larger than any Go linker makes"
            )
        block, within = divmod(offset, _BLOCK)
        if within + size <= _BLOCK:
            return self._block(block)[within : within + size]
        return self._pread(offset, size)

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            offset = number * _BLOCK
            block = self._blocks[number] = self._pread(offset, min(_BLOCK, self.size - offset))
        return block

    def _pread(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd, size, offset)
        except OSError as error:
            raise ExecutableError(f"can't be read: {error.strerror}") from error
        if len(data) != size:
            raise ExecutableError(
                "shrank while it was read; is it being replaced? Replace programs by rename"
            )
        return data
