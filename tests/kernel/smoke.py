"""`python -m tests.kernel.smoke`: the way of a record, on a machine that has no compilers and no pytest.

Attaches to a function of libc, calls it, and drains the records: by every back-end and kind of buffer that
this kernel has. Exit status 1 if a count is wrong; needs root, and the object that tests/kernel/build.py
compiles.
"""

# ruff: noqa: T201 (a test, and a program for the terminal)

from __future__ import annotations

import ctypes
import itertools
import os
import struct
import sys
from pathlib import Path

from agent.kernel import libbpf
from agent.kernel.attach import Backend, attach, attach_raw_tracepoint
from agent.kernel.buffers import open_reader
from agent.kernel.errors import KernelError
from agent.kernel.features import features
from agent.kernel.maps import MapType
from agent.kernel.objects import LoadOptions, load_object
from tests.kernel import build

CALLS = 2000
FILLING = 100


def main() -> int:
    """Run everything; give the exit status."""
    found = features()
    for name, feature in found.named().items():
        print(f"{name:16} {'yes' if feature else 'no':4} {feature.sentence}")
    _messages()
    _tracepoint()
    rings = (True, False) if found.ring_buffer else (False,)
    for backend, ring in itertools.product(found.backends, rings):
        records = _records(backend, ring=ring, cookies=bool(found.cookies))
        print(f"{backend.value}, {'ring' if ring else 'perf'} buffer: {records} records")
    return 0 if found.backends else 1


def _messages() -> None:
    """libbpf's va_list arrives whole."""
    messages: list[str] = []
    libbpf.set_log(lambda _, text: messages.append(text))
    try:
        libbpf.object_open("/no/such.bpf.o")
    except KernelError as error:
        assert "No such file" in str(error)
    libbpf.set_log(None)
    assert messages == ["libbpf: elf: failed to open /no/such.bpf.o: No such file or directory"], messages


def _tracepoint() -> None:
    with load_object(build.probes(), LoadOptions(programs=["noticed"])) as loaded:
        with attach_raw_tracepoint(loaded.program("noticed").fd, "sched_process_exec"):
            pid = os.spawnv(os.P_NOWAIT, "/bin/true", ["true"])  # noqa: S606
            os.waitpid(pid, 0)
        assert loaded.map("hits_by_process").lookup(struct.pack("<I", pid)) == struct.pack("<Q", 1)


def _records(backend: Backend, *, ring: bool, cookies: bool) -> int:
    options = LoadOptions(
        attach_type=backend.attach_type,
        kinds={} if ring else {"events": MapType.PERF_EVENT_ARRAY},
        constants={"by_ring": ring, "with_cookie": cookies, "filling": FILLING},
        programs=["hit"],
    )
    libc = ctypes.CDLL(None)
    mappings = Path("/proc/self/maps").read_text().splitlines()
    path = next(line.split()[-1] for line in mappings if "/libc.so.6" in line)
    offset = build.offset_of(path, "a64l")
    with load_object(build.probes(), options) as loaded:
        reader = open_reader(loaded.map("events"))
        size = 24 + FILLING
        expected = struct.pack("<QII", 77 if cookies else 0, os.getpid(), size)
        numbers = []
        with attach(backend, loaded.program("hit").fd, path, [offset], [77] if cookies else None):
            for _ in range(CALLS // 50):
                for _ in range(50):
                    libc.a64l(b"gospan")
                for record in reader.drain():
                    assert size <= len(record) < size + 8
                    assert record[8:24] == expected, record
                    numbers.append(int.from_bytes(record[:8], "little"))
        libc.a64l(b"gospan")
        assert reader.drain() == []
        assert numbers == list(range(CALLS)), len(numbers)
        assert loaded.variable("lost") == 0
        reader.close()
    return len(numbers)


if __name__ == "__main__":
    sys.exit(main())
