from __future__ import annotations

import mmap
import os
import select
import struct
import time

import pytest

from agent.kernel.attach import attach
from agent.kernel.errors import KernelError
from agent.kernel.features import Features
from agent.kernel.maps import MapType
from agent.kernel.objects import LoadOptions, load_object
from agent.kernel.ring import Cursor, RingReader
from agent.kernel.syscalls import map_create
from tests.kernel import build
from tests.kernel.build import Target, places

BUSY, DISCARD = 1 << 31, 1 << 30


class Memory:
    """A ring buffer made up: what the kernel would have written, of the data what is mapped."""

    def __init__(self, size: int, start: int = 0) -> None:
        self.size = size
        self.control = bytearray(struct.pack("<Q", start)) + bytes(mmap.PAGESIZE - 8)
        self.kernel = bytearray(struct.pack("<Q", start)) + bytes(mmap.PAGESIZE - 8 + size)
        self.cursor = Cursor(memoryview(self.control), memoryview(self.kernel), size)

    @property
    def producer(self) -> int:
        return int.from_bytes(self.kernel[:8], "little")

    @property
    def consumer(self) -> int:
        return int.from_bytes(self.control[:8], "little")

    def add(self, data: bytes, flags: int = 0) -> int:
        position = self.producer
        entry = struct.pack("<II", len(data) | flags, 0) + data
        for index, byte in enumerate(entry):
            place = (position + index) % self.size
            self.kernel[mmap.PAGESIZE + place] = byte
        self.kernel[:8] = struct.pack("<Q", position + (len(entry) + 7 & ~7))
        return position

    def flag(self, position: int, length: int, flags: int) -> None:
        place = mmap.PAGESIZE + position % self.size
        self.kernel[place : place + 4] = struct.pack("<I", length | flags)


def test_records_of_all_lengths_come_in_order() -> None:
    memory = Memory(4096)
    records = [bytes([number]) * number for number in range(60)]
    for record in records:
        memory.add(record)
    assert memory.cursor.pending() == memory.producer
    assert memory.cursor.drain(1000) == records
    assert memory.cursor.pending() == 0
    assert memory.consumer == memory.producer
    assert memory.cursor.drain(1000) == []


def test_limit_leaves_the_rest_for_later() -> None:
    memory = Memory(4096)
    for number in range(10):
        memory.add(bytes([number]))
    assert memory.cursor.drain(4) == [b"\0", b"\1", b"\2", b"\3"]
    assert memory.cursor.drain(4) == [b"\4", b"\5", b"\6", b"\7"]
    assert memory.cursor.drain(4) == [b"\x08", b"\x09"]


def test_batch_ends_at_a_busy_record_until_it_is_submitted() -> None:
    memory = Memory(4096)
    memory.add(b"one")
    position = memory.add(b"two", BUSY)
    memory.add(b"three")
    assert memory.cursor.drain(10) == [b"one"]
    assert memory.cursor.drain(10) == []
    assert memory.consumer == position
    memory.flag(position, 3, 0)
    assert memory.cursor.drain(10) == [b"two", b"three"]


def test_discarded_records_are_passed_over() -> None:
    memory = Memory(4096)
    memory.add(b"x" * 9, DISCARD)
    memory.add(b"one")
    memory.add(b"", DISCARD)
    position = memory.add(b"y" * 100, BUSY | DISCARD)
    assert memory.cursor.drain(10) == [b"one"]
    assert memory.consumer == position
    memory.flag(position, 100, DISCARD)
    memory.add(b"two")
    assert memory.cursor.drain(10) == [b"two"]
    assert memory.cursor.pending() == 0


@pytest.mark.parametrize("start", [0, 4096 - 8, 4096 - 16, (1 << 32) - 24, (1 << 52) - 8])
def test_around_the_end(start: int) -> None:
    memory = Memory(4096, start)
    for lap in range(50):
        records = [bytes([lap]) * length for length in (5, 300, 17, 1000, 0, 8)]
        for record in records:
            memory.add(record)
        assert memory.cursor.drain(1000) == records


def test_record_reaching_past_the_producer() -> None:
    memory = Memory(4096)
    position = memory.add(b"12345678")
    memory.flag(position, 3000, 0)
    with pytest.raises(KernelError, match="ring buffer is corrupt at position 0"):
        memory.cursor.drain(10)


@pytest.mark.kernel
def test_descriptor_that_is_no_ring_buffer() -> None:
    fd = map_create(MapType.HASH, key_size=4, value_size=4, max_entries=1)
    with pytest.raises(KernelError, match="cannot map the ring buffer"):
        RingReader(fd, 4096)
    os.close(fd)


@pytest.mark.kernel
def test_many_records_through_a_small_ring(probes: str, target: Target, found: Features) -> None:
    """Each record comes whole, in order and once, while the ring of 256 kB is gone round dozens of times."""
    backend = found.backend()
    options = LoadOptions(
        attach_type=backend.attach_type,
        max_entries={"events": 1 << 18},
        constants={"filling": 40, "discard_every": 7, "with_cookie": False},
    )
    with load_object(probes, options) as loaded, RingReader(loaded.map("events").fd, 1 << 18) as reader:
        numbers: list[int] = []
        deadline = time.monotonic() + 100
        with attach(backend, loaded.program("hit").fd, f"/proc/{target.pid}/exe", places()):
            for lap in range(1, 101):  # 2000 records of 72 bytes fit, with 286 of 32 given up
                target.start(200)
                while len(numbers) < lap * 2000:
                    assert time.monotonic() < deadline
                    for record in reader.drain(500):
                        assert len(record) == 64
                        assert record[16:24] == struct.pack("<II", target.pid, 64)
                        numbers.append(int.from_bytes(record[:8], "little"))
                target.finish()
        assert loaded.variable("hits") == 200_000
        assert loaded.variable("lost") == 0
    assert numbers == list(range(200_000))


@pytest.mark.kernel
def test_full_ring_loses_exactly_what_does_not_fit(probes: str, target: Target, found: Features) -> None:
    backend = found.backend()
    options = LoadOptions(
        attach_type=backend.attach_type, max_entries={"events": 4096}, constants={"with_cookie": False}
    )
    with load_object(probes, options) as loaded, RingReader(loaded.map("events").fd, 4096) as reader:
        with attach(backend, loaded.program("hit").fd, build.target(), places()):
            target.call(50)
        # 24 bytes and a header of 8; the kernel keeps one byte free, so the last of 128 doesn't fit.
        assert len(reader.drain()) == 127
        assert loaded.variable("hits") == 500
        assert loaded.variable("lost") == 500 - 127
        assert reader.pending() == 0


@pytest.mark.kernel
def test_only_a_forced_wake_up_makes_it_readable(probes: str, target: Target, found: Features) -> None:
    backend = found.backend()
    options = LoadOptions(
        attach_type=backend.attach_type,
        max_entries={"events": 1 << 16},
        constants={"with_cookie": False, "wake_above": 1 << 14},
    )
    with load_object(probes, options) as loaded, RingReader(loaded.map("events").fd, 1 << 16) as reader:
        waiting = select.poll()
        waiting.register(reader.fileno(), select.POLLIN)
        with attach(backend, loaded.program("hit").fd, build.target(), places()):
            target.call(40)  # 400 records of 32 bytes are less than a quarter
            assert waiting.poll(100) == []
            assert reader.pending() == 400 * 32
            target.call(20)
            assert waiting.poll(1000) == [(reader.fileno(), select.POLLIN)]
            assert len(reader.drain()) == 600
            assert waiting.poll(0) == []
            target.call(1)
            assert waiting.poll(100) == []
            assert len(reader.drain()) == 10
