"""Records out of the kernel, whichever kind of buffer brings them."""

from __future__ import annotations

from typing import Protocol

from agent.kernel.errors import KernelError
from agent.kernel.maps import Map, MapType
from agent.kernel.perf import PerfReader
from agent.kernel.ring import RingReader


class RecordReader(Protocol):
    """What RingReader and PerfReader have in common."""

    size: int
    """The size of the buffer in bytes, of one processor's if each has one."""

    @property
    def lost(self) -> int:
        """How many records the kernel dropped without the program's knowing."""

    def fileno(self) -> int:
        """Give a descriptor for poll(2) that is readable from a wake-up until the next `drain`."""

    def pending(self) -> int:
        """Give the bytes that wait."""

    def drain(self, limit: int = 1 << 16) -> list[bytes]:
        """Give at most `limit` records and free their space."""

    def close(self) -> None:
        """Unmap and close."""


def open_reader(events: Map, *, perf_size: int = 1 << 18) -> RecordReader:
    """Map the buffer behind a map, a ring buffer or a perf event array; raise KernelError.

    `perf_size` is the size in bytes of each processor's buffer of a perf event array; a ring buffer has its
    own, max_entries.
    """
    if events.kind == MapType.RINGBUF:
        return RingReader(events.fd, events.max_entries)
    if events.kind == MapType.PERF_EVENT_ARRAY:
        return PerfReader(events, perf_size)
    raise KernelError(f"the map {events.name} is no buffer of records: its type is {events.kind}")
