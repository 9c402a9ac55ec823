from __future__ import annotations

import mmap
import os
import select
import struct
import time

import pytest

from agent.kernel.attach import attach, online_cpus
from agent.kernel.buffers import open_reader
from agent.kernel.errors import KernelError
from agent.kernel.features import Features
from agent.kernel.maps import MapType
from agent.kernel.objects import LoadOptions, load_object
from agent.kernel.perf import Cursor, PerfReader
from tests.kernel import build
from tests.kernel.build import Target, places

LOST, SAMPLE, OTHER = 2, 9, 3


class Memory:
    """A perf buffer made up: what the kernel would have written."""

    def __init__(self, size: int, start: int = 0) -> None:
        self.size = size
        self.memory = bytearray(mmap.PAGESIZE + size)
        self.memory[1024:1040] = struct.pack("<QQ", start, start)
        self.cursor = Cursor(memoryview(self.memory), size)

    @property
    def head(self) -> int:
        return int.from_bytes(self.memory[1024:1032], "little")

    @property
    def tail(self) -> int:
        return int.from_bytes(self.memory[1032:1040], "little")

    def add(self, kind: int, body: bytes) -> None:
        head = self.head
        entry = struct.pack("<IHH", kind, 0, 8 + len(body)) + body
        assert len(entry) % 8 == 0
        for index, byte in enumerate(entry):
            self.memory[mmap.PAGESIZE + (head + index) % self.size] = byte
        self.memory[1024:1032] = struct.pack("<Q", head + len(entry))

    def sample(self, data: bytes) -> bytes:
        """Add a sample as the kernel pads it, and give what comes out of it."""
        padded = data + bytes(-(len(data) + 4) % 8)
        self.add(SAMPLE, struct.pack("<I", len(padded)) + padded)
        return padded


def test_samples_of_all_lengths_come_in_order_and_padded() -> None:
    memory = Memory(8192)
    expected = [memory.sample(bytes([number]) * number) for number in range(80)]
    assert memory.cursor.pending() == memory.head
    assert memory.cursor.drain(1000) == expected
    assert memory.cursor.pending() == 0
    assert memory.tail == memory.head
    assert memory.cursor.drain(1000) == []


def test_lost_records_are_counted_and_others_passed_over() -> None:
    memory = Memory(4096)
    first = memory.sample(b"one")
    memory.add(LOST, struct.pack("<QQ", 77, 5))
    memory.add(OTHER, bytes(24))
    second = memory.sample(b"two")
    memory.add(LOST, struct.pack("<QQ", 77, 2))
    assert memory.cursor.drain(10) == [first, second]
    assert memory.cursor.lost == 7


def test_limit_leaves_the_rest_for_later() -> None:
    memory = Memory(4096)
    expected = [memory.sample(bytes([number]) * 12) for number in range(10)]
    assert memory.cursor.drain(4) == expected[:4]
    assert memory.cursor.drain(4) == expected[4:8]
    assert memory.cursor.drain(4) == expected[8:]


@pytest.mark.parametrize("start", [0, 4096 - 8, 4096 - 16, (1 << 32) - 24, (1 << 52) - 8])
def test_around_the_end(start: int) -> None:
    memory = Memory(4096, start)
    for lap in range(50):
        expected = [memory.sample(bytes([lap]) * length) for length in (5, 300, 17, 1000, 0, 8)]
        assert memory.cursor.drain(1000) == expected


def test_record_without_a_length() -> None:
    memory = Memory(4096)
    memory.sample(b"one")
    memory.memory[mmap.PAGESIZE + 6 : mmap.PAGESIZE + 8] = bytes(2)
    with pytest.raises(KernelError, match="perf buffer is corrupt at position 0"):
        memory.cursor.drain(10)


def _options(found: Features, **constants: int) -> LoadOptions:
    return LoadOptions(
        attach_type=found.backend().attach_type,
        kinds={"events": MapType.PERF_EVENT_ARRAY},
        constants={"by_ring": False, "with_cookie": False, **constants},
    )


@pytest.mark.kernel
def test_many_records_through_small_buffers(probes: str, target: Target, found: Features) -> None:
    """Each record comes whole, in order and once, while the buffer is gone round dozens of times."""
    backend = found.backend()
    with load_object(probes, _options(found, filling=41)) as loaded:
        reader = open_reader(loaded.map("events"), perf_size=1 << 18)
        assert isinstance(reader, PerfReader)
        with reader:
            numbers: list[int] = []
            deadline = time.monotonic() + 100
            # On one processor all records are in one buffer.
            os.sched_setaffinity(target.pid, {online_cpus()[0]})
            with attach(backend, loaded.program("hit").fd, f"/proc/{target.pid}/exe", places()):
                for lap in range(1, 101):  # 2000 records of 80 bytes fit without being drained
                    target.start(200)
                    while len(numbers) < lap * 2000:
                        assert time.monotonic() < deadline
                        for record in reader.drain(500):
                            assert len(record) == 68  # 65, and padding
                            assert record[16:24] == struct.pack("<II", target.pid, 65)
                            numbers.append(int.from_bytes(record[:8], "little"))
                    target.finish()
            assert loaded.variable("hits") == 200_000
            assert loaded.variable("lost") == reader.lost == 0
    assert numbers == list(range(200_000))


@pytest.mark.kernel
def test_full_buffer_loses_exactly_what_does_not_fit(probes: str, target: Target, found: Features) -> None:
    backend = found.backend()
    with (
        load_object(probes, _options(found)) as loaded,
        PerfReader(loaded.map("events"), mmap.PAGESIZE) as reader,
    ):
        os.sched_setaffinity(target.pid, {online_cpus()[0]})
        with attach(backend, loaded.program("hit").fd, build.target(), places()):
            target.call(50)
            # 24 bytes and a header of 12, padded to 40; what fills the buffer to the last byte doesn't fit.
            fitting = (mmap.PAGESIZE - 1) // 40
            assert len(reader.drain()) == fitting
            assert loaded.variable("hits") == 500
            assert loaded.variable("lost") == 500 - fitting
            assert reader.lost == 0  # the kernel says so with the next record
            target.call(1)
            assert len(reader.drain()) == 10
            assert reader.lost == 500 - fitting


@pytest.mark.kernel
def test_a_quarter_wakes_the_reader(probes: str, target: Target, found: Features) -> None:
    backend = found.backend()
    with (
        load_object(probes, _options(found)) as loaded,
        PerfReader(loaded.map("events"), 1 << 16) as reader,
    ):
        waiting = select.poll()
        waiting.register(reader.fileno(), select.POLLIN)
        os.sched_setaffinity(target.pid, {online_cpus()[0]})
        with attach(backend, loaded.program("hit").fd, build.target(), places()):
            target.call(40)  # 400 records of 40 bytes are less than a quarter
            assert waiting.poll(100) == []
            target.call(2)
            assert waiting.poll(1000) == [(reader.fileno(), select.POLLIN)]
            assert len(reader.drain()) == 420
            assert waiting.poll(0) == []


@pytest.mark.kernel
def test_sizes_that_are_no_power_of_two_pages(probes: str, found: Features) -> None:
    with load_object(probes, _options(found)) as loaded:
        for size in (0, 100, mmap.PAGESIZE * 3):
            with pytest.raises(KernelError, match=f"a perf buffer of {size} bytes isn't possible"):
                PerfReader(loaded.map("events"), size)
        with pytest.raises(KernelError, match="the map layouts is no buffer of records"):
            open_reader(loaded.map("layouts"))
