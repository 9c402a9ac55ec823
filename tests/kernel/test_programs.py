"""The agent's own objects in this kernel: what they share, how large they are, and what becomes of a refusal."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

import agent.kernel.programs
from agent.config import AttachWay, BufferKind, Kernel, Propagation
from agent.kernel.attach import Backend, online_cpus
from agent.kernel.errors import KernelError
from agent.kernel.features import Feature, Features
from agent.kernel.maps import MapType
from agent.kernel.programs import PROCESS_PROGRAMS, Programs
from agent.kernel.stats import program_stats
from agent.libraries import LIBRARIES
from agent.paths import object_file

pytestmark = pytest.mark.kernel

MOST_VERIFIED = 150_000
"""Instructions that the verifier may come by for a library: half a second, in which the daemon can do nothing else."""


def test_everything_is_taken(found: Features, backend: Backend) -> None:
    with Programs.load(found, Kernel(attach=AttachWay(backend.value)), libraries=LIBRARIES) as programs:
        assert programs.refused == []
        assert programs.backend is backend
        names = {name for name, _ in programs.descriptors()}
        wanted = {probe.program for library in LIBRARIES for probe in library.probes}
        assert names == wanted | set(PROCESS_PROGRAMS)
        assert set(programs.types) == {"process", *(library.object for library in LIBRARIES)}


def test_no_library_holds_the_daemon_up_while_it_is_loaded(found: Features) -> None:
    everything = Propagation(http1=True, http2=True, grpc=True)
    with Programs.load(found, Kernel(), libraries=LIBRARIES, propagation=everything) as programs:
        verified = {name: program_stats(fd).verified for name, fd in programs.descriptors()}
    assert all(verified.values()), "the kernel tells what its verifier did since 5.16"
    for library in LIBRARIES:
        programs_of = {probe.program for probe in library.probes}
        assert sum(verified[program] for program in programs_of) < MOST_VERIFIED, library.name


def test_a_library_is_loaded_when_it_is_needed(found: Features) -> None:
    with Programs.load(found, Kernel(), libraries=LIBRARIES, when_needed=True) as programs:
        assert {name for name, _ in programs.descriptors()} == set(PROCESS_PROGRAMS)
        assert set(programs.types) == {"process", *(library.object for library in LIBRARIES)}
        kinds, memory = dict(programs.kinds), programs.memory
        programs.write_layouts("net_http_server", 0, {})
        names = {name for name, _ in programs.descriptors()}
        assert "http_server_start" in names
        assert "http_client_start" not in names
        assert dict(programs.kinds) == kinds
        assert programs.memory > memory


def test_records_have_different_kinds_and_belong_to_their_library(found: Features) -> None:
    with Programs.load(found, Kernel(), libraries=LIBRARIES) as programs:
        owners = {kind.format.name: kind.library for kind in programs.kinds.values()}
        assert owners == {
            "process_exec_record": None,
            "process_exit_record": None,
            **{name: library for library in LIBRARIES for name in library.records},
        }
        assert all(number == kind.number > 0 for number, kind in programs.kinds.items())


def test_maps_are_as_large_as_configured(found: Features) -> None:
    settings = Kernel(max_in_flight=100, max_executables=7, buffer_size=100_000, buffer=BufferKind.AUTO)
    with Programs.load(found, settings, libraries=LIBRARIES) as programs:
        assert programs.map("goroutines").max_entries == 300
        assert programs.map("runtime_layouts").max_entries == 7
        server = programs._objects["net_http_server"]
        assert server.map("http_server_layouts").max_entries == 7
        assert server.map("header_map_layouts").max_entries == 7
        assert server.map("http_server_requests").max_entries == 100
        assert server.map("goroutines").fd != programs.map("goroutines").fd
        programs.map("goroutines").update(bytes(16), bytes(programs.map("goroutines").value_size))
        assert server.map("goroutines").lookup(bytes(16)) is not None
        if found.ring_buffer:
            assert programs.map("records").max_entries == 128 << 10
        assert programs.memory > 100_000


def test_a_perf_buffer_where_it_is_asked_for(found: Features) -> None:
    settings = Kernel(buffer=BufferKind.PERF, buffer_size=4 << 20)
    with Programs.load(found, settings, libraries=LIBRARIES) as programs:
        assert programs.map("records").kind == MapType.PERF_EVENT_ARRAY
        assert 64 << 10 <= programs.reader.size <= max(64 << 10, (4 << 20) // len(online_cpus()))
        assert programs.reader.drain() is not None


def test_a_ring_that_is_asked_for_and_not_there(found: Features) -> None:
    without = dataclasses.replace(found, ring_buffer=Feature(False, "it came with Linux 5.8"))
    with pytest.raises(KernelError, match=r"kernel\.buffer is set to ring, but"):
        Programs.load(without, Kernel(buffer=BufferKind.RING), libraries=LIBRARIES)
    with Programs.load(without, Kernel(), libraries=LIBRARIES) as programs:
        assert programs.map("records").kind == MapType.PERF_EVENT_ARRAY


def test_objects_that_are_missing(found: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's costs the library; the processes' costs all, with a sentence."""
    monkeypatch.setattr(agent.kernel.programs, "object_file", lambda name: tmp_path / f"{name}.bpf.o")
    with pytest.raises(KernelError, match=r"process.bpf.o.*make bpf"):
        Programs.load(found, Kernel(), libraries=LIBRARIES)
    monkeypatch.undo()
    process = object_file("process")
    monkeypatch.setattr(agent.kernel.programs, "object_file", lambda name: tmp_path / f"{name}.bpf.o")
    shutil.copy(process, tmp_path)
    with Programs.load(found, Kernel(), libraries=LIBRARIES) as programs:
        assert [(one.library, one.program) for one in programs.refused] == [
            (one.name, "") for one in LIBRARIES
        ]
        for library, refused in zip(LIBRARIES, programs.refused, strict=True):
            assert f"{library.object}.bpf.o" in refused.reason


def test_counters_have_names_and_start_at_zero(found: Features) -> None:
    with Programs.load(found, Kernel(), libraries=()) as programs:
        counters = programs.counters()
        assert {"spans_started", "records_lost", "texts_cut", "processes_unknown"} <= counters.keys()
        assert "max" not in counters
        assert counters["spans_started"] == 0


def test_constants_and_formats_of_the_shared_headers(found: Features) -> None:
    with Programs.load(found, Kernel(), libraries=()) as programs:
        assert programs.constant("FILE_IGNORED") != programs.constant("FILE_TRACED")
        key, value = programs.format("file_key"), programs.format("file_entry")
        files = programs.map("files")
        assert (files.key_size, files.value_size) == (key.size, value.size)
        assert programs.map("processes").value_size == programs.format("process").size


def test_closing_gives_everything_back(found: Features) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- counting, not walking

    with Programs.load(found, Kernel(), libraries=LIBRARIES) as programs:
        programs.reader.drain()
    before = descriptors()
    for _ in range(3):
        with Programs.load(found, Kernel(), libraries=LIBRARIES) as programs:
            programs.reader.drain()
    assert descriptors() == before
