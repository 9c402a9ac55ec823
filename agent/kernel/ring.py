"""The BPF ring buffer, mapped and drained in bulk: no call into C for each record.

Layout (kernel/bpf/ringbuf.c, Documentation/bpf/ringbuf.rst): page 0 holds the consumer's position and is
ours to write; page 1 holds the producer's position; then the data, which the kernel has twice in a row so that
no record is torn at the end. Only the first is mapped here, as each would count as memory of this process; a batch that
goes past the end is put together. A record is a header of 8 bytes, the first four its length and two flags, and
is padded to 8. Positions count bytes and only grow.
"""

from __future__ import annotations

import mmap
import select
from types import TracebackType

from agent.kernel import barrier
from agent.kernel.errors import KernelError

_BUSY = 1 << 31
"""The record is reserved but not yet submitted (BPF_RINGBUF_BUSY_BIT)."""
_DISCARD = 1 << 30
"""The record was given up by its program (BPF_RINGBUF_DISCARD_BIT)."""
_LENGTH = _DISCARD - 1
_HEADER = 8


class RingReader:
    """Reads the records of one ring buffer map; the only reader it may have.

    Programs should submit with BPF_RB_NO_WAKEUP and force a wake-up when much is waiting; then `fileno`
    becomes readable only then, and the owner drains on a timer besides.

    A batch costs three barriers and one copy; a record about a quarter of a microsecond.
    """

    def __init__(self, fd: int, size: int) -> None:
        """Map the ring buffer `fd` of `size` bytes, the map's max_entries; raise KernelError."""
        page = mmap.PAGESIZE
        try:
            self._control = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            self._kernel = mmap.mmap(fd, page + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError as error:
            raise KernelError("cannot map the ring buffer", errno=error.errno or 0) from None
        # Edge-triggered: a ring is readable whenever it isn't empty, and only edges are wake-ups.
        self._poll = select.epoll()
        self._poll.register(fd, select.EPOLLIN | select.EPOLLET)
        self._cursor = Cursor(memoryview(self._control), memoryview(self._kernel), size)
        self.size = size

    @property
    def lost(self) -> int:
        """Always 0: a program that gets no space in a ring buffer knows it and counts it itself."""
        return 0

    def fileno(self) -> int:
        """Give a descriptor for poll(2) that is readable from a forced wake-up until the next `drain`."""
        return self._poll.fileno()

    def pending(self) -> int:
        """Give the bytes that wait, headers and records not yet submitted included."""
        return self._cursor.pending()

    def drain(self, limit: int = 1 << 16) -> list[bytes]:
        """Give the records that are complete, oldest first and at most `limit`, and free their space.

        A record that its program is still filling ends the batch, since they come in order.
        """
        self._poll.poll(0)
        return self._cursor.drain(limit)

    def close(self) -> None:
        """Unmap; the reader is of no use any more."""
        self._cursor.release()
        self._poll.close()
        self._control.close()
        self._kernel.close()

    def __enter__(self) -> RingReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Cursor:
    """Walks the memory of a ring buffer: `control` is the consumer's page, `kernel` what comes after it."""

    def __init__(self, control: memoryview, kernel: memoryview, size: int) -> None:
        # Views of whole words: Python then reads and writes each in one piece, which struct doesn't promise.
        self._consumer = control[:8].cast("Q")
        self._producer = kernel[:8].cast("Q")
        self._data = kernel[mmap.PAGESIZE :]
        self._words = self._data.cast("I")
        self._mask = size - 1
        self._barrier = barrier.full_barrier()

    def pending(self) -> int:
        """Give the bytes between consumer and producer."""
        return int(self._producer[0] - self._consumer[0])

    def drain(self, limit: int) -> list[bytes]:
        """Give at most `limit` complete records and move the consumer behind them; see RingReader.drain."""
        consumer = self._consumer[0]
        waiting = self._producer[0] - consumer
        if not waiting:
            return []
        start = consumer & self._mask
        # In words of 4 bytes from here on.
        words, mask, base = self._words, self._mask >> 2, start >> 2
        position, end = base, base + (waiting >> 2)
        headers: list[int] = []
        add = headers.append
        self._barrier()  # headers are not read before the producer's position
        for _ in range(limit):
            if position >= end:
                break
            header = words[position & mask]
            if header & _BUSY:
                break
            add(header)
            position += (header & _LENGTH) + 15 >> 3 << 1
        if position > end:
            raise KernelError(
                f"the ring buffer is corrupt at position {consumer}: a record reaches past its end"
            )
        size = position - base << 2
        self._barrier()  # data is not read before the headers
        batch = bytes(self._data[start : start + size])
        if len(batch) < size:
            batch += self._data[: size - len(batch)]
        self._barrier()  # and space is not freed before the data is read
        self._consumer[0] = consumer + size

        records: list[bytes] = []
        place = _HEADER
        for header in headers:
            if header < _DISCARD:
                records.append(batch[place : place + header])
            place += (header & _LENGTH) + 15 & ~7
        return records

    def release(self) -> None:
        """Let go of the memory, so that it can be unmapped."""
        for view in (self._consumer, self._producer, self._words, self._data):
            view.release()
