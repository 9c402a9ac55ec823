"""A perf event array, drained in bulk: records out of kernels without the BPF ring buffer (before 5.8).

One buffer for each processor that is online at the start; one that comes later has none, and its records
are lost to the program, which is told so (bpf_perf_event_output gives -ENOENT). Layout: struct
perf_event_mmap_page in include/uapi/linux/perf_event.h, then the data, a power of two of pages. Records of
one processor come in order, those of several don't.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
from types import TracebackType

from agent.kernel import barrier, syscalls
from agent.kernel.attach import online_cpus
from agent.kernel.errors import KernelError
from agent.kernel.maps import Map

_DATA_HEAD = 1024
"""The offset of data_head, which the kernel writes, in bytes; data_tail, ours, follows it."""
_RECORD_LOST = 2
_RECORD_SAMPLE = 9
_SAMPLE_HEADER = 12
"""struct perf_event_header (8 bytes), then the length of the sample (4)."""


class PerfReader:
    """Reads the records of one perf event array; has the same interface as RingReader.

    Records may have up to 7 bytes more than the program wrote: the kernel pads them and doesn't say by how
    much. A buffer wakes its reader when a quarter of it is full.
    """

    def __init__(self, events: Map, size: int) -> None:
        """Open, map and enter into the map one buffer of `size` bytes for each online processor.

        `size` is a power of two, at least a page. Raise KernelError.
        """
        if size < mmap.PAGESIZE or size & size - 1:
            raise KernelError(
                f"a perf buffer of {size} bytes isn't possible", hint="take a power of two of pages"
            )
        self.size = size
        self._poll = select.epoll()
        self._descriptors: list[int] = []
        self._mappings: list[mmap.mmap] = []
        self._cursors: list[Cursor] = []
        self._first = 0
        try:
            for cpu in online_cpus():
                self._open(events, cpu)
        except BaseException:
            self.close()
            raise

    def _open(self, events: Map, cpu: int) -> None:
        attribute = syscalls.PerfEventAttr(
            type=syscalls.PERF_TYPE_SOFTWARE,
            config=syscalls.PERF_COUNT_SW_BPF_OUTPUT,
            sample_period=1,
            sample_type=syscalls.PERF_SAMPLE_RAW,
            flags=syscalls.PERF_FLAG_WATERMARK,
            wakeup=self.size // 4,
        )
        fd = syscalls.perf_event_open(attribute, cpu=cpu)
        self._descriptors.append(fd)
        try:
            mapping = mmap.mmap(fd, mmap.PAGESIZE + self.size, mmap.MAP_SHARED)
        except OSError as error:
            hint = "LimitMEMLOCK=infinity or CAP_IPC_LOCK is needed" if error.errno == errno.EPERM else ""
            raise KernelError("cannot map a perf buffer", errno=error.errno or 0, hint=hint) from None
        self._mappings.append(mapping)
        self._cursors.append(Cursor(memoryview(mapping), self.size))
        self._poll.register(fd, select.EPOLLIN | select.EPOLLET)
        events.update(cpu.to_bytes(4, "little"), fd.to_bytes(4, "little"))

    @property
    def lost(self) -> int:
        """How many records the kernel had no space for, as far as it has said so.

        It says so ahead of the next record that does get space on that processor.
        """
        return sum(cursor.lost for cursor in self._cursors)

    def fileno(self) -> int:
        """Give a descriptor for poll(2) that is readable from a wake-up until the next `drain`."""
        return self._poll.fileno()

    def pending(self) -> int:
        """Give the bytes that wait on all processors."""
        return sum(cursor.pending() for cursor in self._cursors)

    def drain(self, limit: int = 1 << 16) -> list[bytes]:
        """Give the records that wait, at most `limit`, and free their space.

        Each time another processor comes first, so that the limit starves none.
        """
        self._poll.poll(0, len(self._cursors))
        records: list[bytes] = []
        count = len(self._cursors)
        for index in range(count):
            left = limit - len(records)
            if left > 0:
                records += self._cursors[(self._first + index) % count].drain(left)
        self._first = (self._first + 1) % count
        return records

    def close(self) -> None:
        """Unmap and close the buffers; the map's entries go with them."""
        for cursor in self._cursors:
            cursor.release()
        for mapping in self._mappings:
            mapping.close()
        while self._descriptors:
            os.close(self._descriptors.pop())
        self._poll.close()

    def __enter__(self) -> PerfReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Cursor:
    """Walks the memory of one perf buffer, control page first; `size` is that of the data in bytes."""

    def __init__(self, memory: memoryview, size: int) -> None:
        self._positions = memory[_DATA_HEAD : _DATA_HEAD + 16].cast("Q")  # head, tail
        self._data = memory[mmap.PAGESIZE : mmap.PAGESIZE + size]
        self._size = size
        self._barrier = barrier.full_barrier()
        self.lost = 0

    def pending(self) -> int:
        """Give the bytes between tail and head."""
        return int(self._positions[0] - self._positions[1])

    def drain(self, limit: int) -> list[bytes]:
        """Give at most `limit` records and move the tail behind them."""
        head, tail = self._positions
        waiting = head - tail
        if not waiting:
            return []
        self._barrier()  # data is not read before the head
        start = tail & self._size - 1
        batch = bytes(self._data[start : start + waiting])
        if len(batch) < waiting:  # around the end
            batch += bytes(self._data[: waiting - len(batch)])

        words = memoryview(batch).cast("Q")  # records are padded to 8 bytes
        records: list[bytes] = []
        position = 0
        while position < waiting and len(records) < limit:
            header = words[position >> 3]  # 32 bits of type, 16 of misc, 16 of size
            size = header >> 48
            if not size:
                raise KernelError(
                    f"the perf buffer is corrupt at position {tail + position}: an empty record"
                )
            kind = header & 0xFFFFFFFF
            if kind == _RECORD_SAMPLE:
                records.append(batch[position + _SAMPLE_HEADER : position + size])
            elif kind == _RECORD_LOST:
                self.lost += words[(position >> 3) + 2]  # after the header and the event's id
            position += size
        self._barrier()  # space is not freed before the data is read
        self._positions[1] = tail + position
        return records

    def release(self) -> None:
        """Let go of the memory, so that it can be unmapped."""
        self._positions.release()
        self._data.release()
