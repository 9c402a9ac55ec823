from __future__ import annotations

import ctypes
import os
import shutil
import struct
from collections import Counter
from pathlib import Path

import pytest

from agent.kernel.attach import AttachError, Backend, attach, attach_raw_tracepoint, parse_cpus
from agent.kernel.buffers import open_reader
from agent.kernel.errors import KernelError
from agent.kernel.features import Features
from agent.kernel.maps import MapType
from agent.kernel.objects import LoadedObject, LoadOptions, load_object
from tests.kernel import build
from tests.kernel.build import Target, places


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def load(probes: str, backend: Backend, *, ring: bool = True, cookies: bool = True) -> LoadedObject:
    kinds = {} if ring else {"events": MapType.PERF_EVENT_ARRAY}
    constants = {"by_ring": ring, "with_cookie": cookies}
    return load_object(probes, LoadOptions(attach_type=backend.attach_type, kinds=kinds, constants=constants))


def test_parsing_lists_of_processors() -> None:
    assert parse_cpus("0-3,8\n") == (0, 1, 2, 3, 8)
    assert parse_cpus("0") == (0,)


@pytest.mark.kernel
@pytest.mark.parametrize("ring", [True, False], ids=["ring", "perf buffer"])
def test_as_many_records_as_calls(
    probes: str, target: Target, backend: Backend, found: Features, ring: bool
) -> None:
    """Ten places, each called 50 times with the attached program running already, and 50 times in another."""
    ring = ring and bool(found.ring_buffer)
    cookies = [1000 + number for number in range(10)] if found.cookies else None
    with load(probes, backend, ring=ring, cookies=bool(cookies)) as loaded:
        reader = open_reader(loaded.map("events"))
        attachment = attach(backend, loaded.program("hit").fd, build.target(), places(), cookies)
        assert attachment.descriptors == (1 if backend is Backend.UPROBE_MULTI else 10)
        target.call(50)
        with Target() as other:
            other.call(50)
        records = reader.drain()
        by_place = Counter(struct.unpack_from("<QQI", record)[1:] for record in records)
        calls = {(cookie, pid): 50 for cookie in cookies or () for pid in (target.pid, other.pid)}
        assert by_place == (calls or {(0, target.pid): 500, (0, other.pid): 500})
        assert loaded.variable("lost") == 0

        attachment.close()
        target.call(50)
        assert reader.drain() == []
        assert loaded.variable("hits") == 1000
        reader.close()


@pytest.mark.kernel
def test_attached_by_a_process_that_ends(probes: str, backend: Backend, tmp_path: Path) -> None:
    """The file is deleted, its process ends, and another that still runs it is traced."""
    path = tmp_path / "with blank"
    shutil.copy(build.target(), path)
    with load(probes, backend, cookies=False) as loaded, Target(str(path)) as survivor:
        with Target(str(path)) as first:
            path.unlink()
            attachment = attach(backend, loaded.program("count").fd, f"/proc/{first.pid}/exe", places()[:3])
            first.call(2)
        survivor.call(7)
        seen = loaded.map("hits_by_process")
        assert set(seen.keys()) == {struct.pack("<I", first.pid), struct.pack("<I", survivor.pid)}
        assert seen.lookup(struct.pack("<I", first.pid)) == struct.pack("<Q", 6)
        assert seen.lookup(struct.pack("<I", survivor.pid)) == struct.pack("<Q", 21)
        attachment.close()


@pytest.mark.kernel
def test_libc_of_ourselves(probes: str, backend: Backend) -> None:
    """A function of libc that no other program calls, called here."""
    libc = ctypes.CDLL(None)
    path = next(
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so.6" in line
    )
    with (
        load(probes, backend, cookies=False) as loaded,
        attach(backend, loaded.program("count").fd, path, [build.offset_of(path, "a64l")]),
    ):
        for _ in range(300):
            libc.a64l(b"gospan")
        own = struct.pack("<I", os.getpid())
        assert loaded.map("hits_by_process").lookup(own) == struct.pack("<Q", 300)


@pytest.mark.kernel
def test_refused_offset_is_named(probes: str, target: Target, backend: Backend) -> None:
    beyond = 1 << 30
    with load(probes, backend, cookies=False) as loaded:
        before = descriptors()
        with pytest.raises(AttachError, match="0x40000000") as caught:
            attach(backend, loaded.program("count").fd, build.target(), [*places(), beyond])
        assert caught.value.offsets == (beyond,)
        assert "outside of the file" in str(caught.value)
        assert descriptors() == before
        target.call(1)
        assert list(loaded.map("hits_by_process").keys()) == []


@pytest.mark.kernel
def test_files_that_can_not_be_attached_to(probes: str, backend: Backend) -> None:
    with load(probes, backend, cookies=False) as loaded:
        fd = loaded.program("count").fd
        with pytest.raises(AttachError, match="cannot open /no/such/file: No such file"):
            attach(backend, fd, "/no/such/file", [0])
        with pytest.raises(AttachError, match="/dev/null: it is no regular file"):
            attach(backend, fd, "/dev/null", [0])
        with pytest.raises(ValueError, match="no offsets"):
            attach(backend, fd, build.target(), [])
        with pytest.raises(ValueError, match="1 cookies for 2 offsets"):
            attach(backend, fd, build.target(), places()[:2], [1])


@pytest.mark.kernel
def test_program_loaded_for_another_back_end(probes: str, found: Features) -> None:
    assert found.loading
    with load(probes, Backend.PERF, cookies=False) as loaded, pytest.raises(AttachError):
        attach(Backend.UPROBE_MULTI, loaded.program("count").fd, build.target(), places())


@pytest.mark.kernel
def test_no_descriptor_is_leaked(probes: str, target: Target, backend: Backend) -> None:
    before = descriptors()
    for _ in range(2):
        with load(probes, backend, cookies=False) as loaded:
            reader = open_reader(loaded.map("events"))
            with attach(backend, loaded.program("hit").fd, build.target(), places()[:2]):
                target.call(1)
            assert len(reader.drain()) == 2
            reader.close()
    assert descriptors() == before


@pytest.mark.kernel
def test_raw_tracepoints_see_processes_come_and_go(probes: str) -> None:
    with load(probes, Backend.PERF, cookies=False) as loaded:
        seen = loaded.map("hits_by_process")
        with attach_raw_tracepoint(loaded.program("noticed").fd, "sched_process_exec"), Target() as first:
            assert seen.lookup(struct.pack("<I", first.pid)) == struct.pack("<Q", 1)
        with Target() as second:
            assert seen.lookup(struct.pack("<I", second.pid)) is None
            with attach_raw_tracepoint(loaded.program("ended").fd, "sched_process_exit"):
                second.close()
        assert seen.lookup(struct.pack("<I", second.pid)) == struct.pack("<Q", 1)
        with pytest.raises(KernelError, match="raw tracepoint no_such_thing"):
            attach_raw_tracepoint(loaded.program("noticed").fd, "no_such_thing")
