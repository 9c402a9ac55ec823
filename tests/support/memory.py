"""The machine code of a running process, as it is in memory and as it is in the file."""

from __future__ import annotations

from pathlib import Path

from agent.executable import Executable
from agent.kernel import btf
from agent.libraries import LIBRARIES
from agent.offsets.resolve import Resolver
from agent.paths import object_file
from agent.plan import make_plan

LENGTH = 16
"""Bytes that are looked at from each place on."""


def places(program: Path) -> list[int]:
    """The file offsets at which the agent's plan for a program has probes."""
    types = {library.object: btf.read(str(object_file(library.object))) for library in LIBRARIES}
    with Executable(str(program)) as executable:
        plan = make_plan(executable, types, Resolver())
    return [probe.file_offset for library in plan.traced for probe in library.probes]


def in_file(program: Path, offsets: list[int]) -> list[bytes]:
    """What the file has there."""
    data = program.read_bytes()
    return [data[offset : offset + LENGTH] for offset in offsets]


def in_memory(pid: int, offsets: list[int]) -> list[bytes]:
    """What the process has there: breakpoints, where probes are."""
    exe = Path(f"/proc/{pid}/exe").readlink()
    mapped: list[tuple[int, int, int]] = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, _, from_file, _, _, *path = line.split(maxsplit=5)
        if path == [str(exe)]:
            begin, _, end = span.partition("-")
            mapped.append((int(from_file, 16), int(begin, 16), int(end, 16)))
    found = []
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for offset in offsets:
            (address,) = {
                low + offset - first for first, low, high in mapped if first <= offset < first + high - low
            }
            memory.seek(address)
            found.append(memory.read(LENGTH))
    return found
