"""Asks everything there is to ask about damaged programs, in a process of its own with little memory."""

from __future__ import annotations

import os
import random
import resource
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from agent.executable import Executable, ExecutableError, NoPlaceError, field_offset, types_of
from agent.executable.elf import Image
from agent.executable.moduledata import find_moduledata
from agent.executable.pclntab import find_pclntab
from agent.executable.source import Source

SECONDS = 2.0
MEMORY = 200 << 20

FUNCTIONS = (
    "main.main",
    "runtime.newproc1",
    "runtime.memmove",
    "os.(*File).Write",
    "runtime.goexit",
    "fmt.Fprintln",
)
PATHS = (
    "runtime.g.goid",
    "runtime.g.sched.pc",
    "main.T.Inner.B",
    "os.File.file",
    "main.T.Line",
    "runtime.moduledata.types",
)


def ask(executable: Executable) -> None:
    """Ask all that a plan asks, and more."""
    questions = (
        lambda: executable.functions(FUNCTIONS),
        lambda: field_offset(executable.structs(types_of(PATHS)), PATHS[0]),
        lambda: executable.map_geometry("main.M"),
        executable.itabs,
        lambda: executable.type_name(0x500000),
        executable.all_structs,
        lambda: executable.known_layout,
    )
    for question in questions:
        try:
            question()
        except ExecutableError as error:
            check(error, executable.path)
    try:
        found = executable.functions(FUNCTIONS)
    except ExecutableError:
        return
    for functions in found.values():
        for function in functions:
            try:
                executable.entry_place(function)
                executable.return_places(function)
            except (NoPlaceError, ExecutableError) as error:
                check(error, executable.path)


def check(error: ExecutableError, path: str) -> None:
    """An error names the file and is one sentence, not a page."""
    text = str(error)
    assert text.startswith(f"{path}: "), text
    assert 10 < len(text) - len(path) < 400, text
    assert "\n" not in text


def run(name: str, fd: int) -> str:
    """Read one damaged program; returns what went wrong, or nothing."""
    start = time.process_time()
    try:
        with Executable(name, fd=fd) as executable:
            ask(executable)
    except ExecutableError as error:
        check(error, name)
    except Exception as error:  # noqa: BLE001
        return f"{name}: {type(error).__name__}: {error}"
    took = time.process_time() - start
    return f"{name}: took {took:.1f} s" if took > SECONDS else ""


def _interesting(data: bytes, addresses: tuple[int, ...], chance: random.Random) -> int:
    return chance.choice(
        (
            0, 1, 7, 8, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63,
            (1 << 64) - 1, len(data), len(data) - 1, 1 << 20, 1 << 24, *addresses, *addresses,
            chance.choice(addresses) + chance.randrange(-64, 4096),
        )
    )  # fmt: skip


def places_that_matter(program: Path) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
    """File ranges that are read when a program is, and addresses worth pointing at."""
    with Source(str(program)) as source:
        image = Image(source)
        table = next(find_pclntab(image))
        module = find_moduledata(image, table, None)
        assert module is not None
        at = image.file_offset
        size = module.etypes - module.types
        ranges = [
            (0, 64),
            (64, 64 + 56 * 12),
            (at(image.sections[".go.buildinfo"][0]), 512),
            (at(table.address), 72),
            (at(table.functab), 8 * table.functions),
            (at(table.names), table.names_end - table.names),
            (at(module.address), 512),
            (at(module.address), 512),
            (at(module.types), size),
            (at(module.types), size),
            (at(module.types), size),
            (at(module.text), 1 << 16),
            (0, source.size),
        ]
        shoff = struct.unpack("<Q", source.read(40, 8))[0]
        ranges.append((shoff, 64 * 30))
        addresses = (
            table.address,
            module.address,
            module.types,
            module.etypes,
            module.text,
            image.segments[-1].end,
        )
    return ranges, addresses


def mutations(program: Path, seed: int, count: int) -> Iterator[tuple[str, dict[int, bytes], int]]:
    """(name, bytes to write at offsets, size) of `count` damaged copies of a program."""
    chance = random.Random(seed)  # noqa: S311
    data = program.read_bytes()
    ranges, addresses = places_that_matter(program)
    for number in range(count):
        kind = chance.choice(("bits", "words", "words", "halves", "zeros", "copy", "truncate", "garbage"))
        writes: dict[int, bytes] = {}
        size = len(data)
        for _ in range(chance.choice((1, 1, 2, 5, 40))):
            start, length = chance.choice(ranges)
            at = min(start + chance.randrange(max(1, length)), len(data) - 1)
            if kind == "bits":
                writes[at] = bytes([data[at] ^ 1 << chance.randrange(8)])
            elif kind == "words":
                at &= ~7
                writes[at] = struct.pack("<Q", _interesting(data, addresses, chance) & (1 << 64) - 1)
            elif kind == "halves":
                at &= ~3
                writes[at] = struct.pack("<I", _interesting(data, addresses, chance) & 0xFFFFFFFF)
            elif kind == "zeros":
                writes[at] = bytes(chance.choice((8, 64, 4096)))
            elif kind == "copy":
                source, length = chance.choice(ranges)
                source += chance.randrange(max(1, length))
                writes[at & ~7] = data[source & ~7 : (source & ~7) + chance.choice((8, 80, 512, 8192))]
            elif kind == "garbage":
                writes[at] = chance.randbytes(chance.choice((4, 64, 1024)))
            else:
                size = chance.choice((at, chance.randrange(len(data)), len(data) - chance.randrange(1, 4096)))
        yield f"{program.parent.name}/{seed}.{number}.{kind}", writes, size


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"still running after {3 * SECONDS} s")


def limit() -> None:
    """Leave this process 200 MB more than it has, and let it be interrupted."""
    with Path("/proc/self/statm").open() as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGVTALRM, _too_long)


def attack(program: Path, seed: int, count: int) -> list[str]:
    """Read `count` damaged copies of a program; returns what went wrong."""
    data = program.read_bytes()
    fd = os.memfd_create("hostile")
    os.pwrite(fd, data, 0)
    limit()
    wrong = []
    for name, writes, size in mutations(program, seed, count):
        for at, new in writes.items():
            os.pwrite(fd, new, at)
        os.ftruncate(fd, size)
        signal.setitimer(signal.ITIMER_VIRTUAL, 3 * SECONDS)
        problem = run(name, fd)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if problem:
            wrong.append(problem)
        os.ftruncate(fd, len(data))
        if size < len(data):
            os.pwrite(fd, data[size:], size)
        for at, new in writes.items():
            os.pwrite(fd, data[at : at + len(new)], at)
    return wrong


def attack_file(path: Path) -> list[str]:
    """Read one file under the same limits; returns what went wrong."""
    fd = os.open(path, os.O_RDONLY)
    limit()
    signal.setitimer(signal.ITIMER_VIRTUAL, 3 * SECONDS)
    problem = run(path.name, fd)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return [problem] if problem else []
