"""Damaged and malicious programs must give a clear error within 2 s and 200 MB, and never anything else."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from agent.executable import Executable, ExecutableError, NotGoError, UnsupportedError
from agent.executable.elf import Image
from agent.executable.moduledata import find_moduledata
from agent.executable.pclntab import find_pclntab
from agent.executable.source import Source
from tests.executable import hostile
from tests.support import golang

SMALL = """package main

import "os"

type Base struct { Line int }
type T struct {
	Base
	Kind byte
	Inner struct { A, B int }
}
type M map[string]T

var all = []any{&T{}, M{}}

func main() { os.Stdout.WriteString("x"); println(all[0], all[1]) }
"""

COUNT = 500
CASES = [
    (go, mode, arch, seed)
    for seed, (go, mode, arch) in enumerate(
        (
            ("1.27.4", "stripped", "amd64"),
            ("1.27.4", "pie", "amd64"),
            ("1.19.13", "stripped", "amd64"),
            ("1.27.4", "stripped", "arm64"),
            ("1.26.11", "stripped", "amd64"),
            ("1.27.4", "pie-empty-targets", "amd64"),
        )
    )
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("small")
    (directory / "go.mod").write_text("module example.com/small\ngo 1.19\n")
    (directory / "main.go").write_text(SMALL)
    return directory


def apart(function: Callable[..., list[str]], *arguments: object) -> list[str]:
    """Call in a fresh process, which then limits its own memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result(timeout=300)


@pytest.mark.parametrize(("go", "mode", "arch", "seed"), CASES)
def test_thousands_of_damaged_programs(source: Path, go: str, mode: str, arch: str, seed: int) -> None:
    program = golang.build(source, go=go, mode=mode, arch=arch)
    assert apart(hostile.attack, program, seed, COUNT) == []


@pytest.mark.parametrize("mode", ["stripped", "no-sections"])
def test_every_way_to_truncate_the_headers(source: Path, mode: str, tmp_path: Path) -> None:
    data = golang.build(source, mode=mode).read_bytes()
    for size in (*range(0, 700, 7), *range(700, len(data), len(data) // 50)):
        (tmp_path / "short").write_bytes(data[:size])
        with pytest.raises(ExecutableError, match="short: "):
            Executable(str(tmp_path / "short"))


class Forge:
    """A copy of a real program with one more segment, whose bytes and whose place in moduledata a test decides."""

    ADDRESS = 0x7000_0000

    def __init__(self, program: Path) -> None:
        self.data = bytearray(program.read_bytes())
        with Source(str(program)) as file:
            image = Image(file)
            self.table = next(find_pclntab(image))
            module = find_moduledata(image, self.table, 27)
            assert module is not None
            self.moduledata = image.file_offset(module.address)
            self.functab = image.file_offset(self.table.functab)
            self.header = image.file_offset(self.table.address)

    def word(self, offset: int, *values: int) -> None:
        struct.pack_into(f"<{len(values)}Q", self.data, offset, *values)

    def write(self, path: Path, segment: bytes, size: int | None = None) -> Path:
        """Write it, with the segment behind the end in the place of PT_GNU_STACK; `size` makes it end in a hole."""
        start = len(self.data) + -len(self.data) % 4096
        size = size or len(segment)
        phoff, phnum = struct.unpack_from("<Q", self.data, 32)[0], struct.unpack_from("<H", self.data, 56)[0]
        for at in range(phoff, phoff + 56 * phnum, 56):
            if struct.unpack_from("<I", self.data, at)[0] == 0x6474E551:
                struct.pack_into("<IIQQQQQQ", self.data, at, 1, 4, start, self.ADDRESS, 0, size, size, 4096)
        with path.open("wb") as file:
            file.write(self.data)
            file.seek(start)
            file.write(segment)
            file.truncate(start + size)
        return path

    def types(self, size: int) -> None:
        """Let moduledata say that the types are in the new segment (Go 1.27: types, typedesclen, etypes, itabs)."""
        self.word(self.moduledata + 8 * 37, self.ADDRESS, size, self.ADDRESS + size, 0, 0)


def name(text: bytes) -> bytes:
    return bytes([0, len(text)]) + text


def descriptor(base: int, string: int, package: int, fields: int, count: int, kind: int = 25) -> bytes:
    """A defined struct type of 64 kB, with an uncommon part."""
    head = struct.pack("<QQIBBBBQQiI", 1 << 16, 0, 0, 7, 8, 8, kind, 0, 0, string, 0)
    return (
        head + struct.pack("<QQQQ", base, fields, count, count) + struct.pack("<iHHII", package, 0, 0, 0, 0)
    )


@pytest.fixture
def forge(source: Path) -> Forge:
    return Forge(golang.build(source))


def test_types_without_end(forge: Forge, tmp_path: Path) -> None:
    """A quarter of a million types with the same name, each with ten thousand fields of its own type."""
    base = Forge.ADDRESS
    names = (
        bytes(8)
        + name(b"*main.T").ljust(16, b"\0")
        + name(b"main").ljust(16, b"\0")
        + name(b"f").ljust(24, b"\0")
    )
    fields = 10_000
    array = struct.pack("<QQQ", base + 40, base + 64 + 24 * fields, 0) * fields
    segment = names + array + descriptor(base, 8, 24, base + 64, fields) * 250_000
    forge.types(len(segment))
    assert apart(hostile.attack_file, forge.write(tmp_path / "types", segment)) == []


@pytest.mark.parametrize("same", [True, False], ids=["one name", "names that differ"])
def test_types_with_many_fields_each(forge: Forge, tmp_path: Path, same: bool) -> None:
    """Types with thousands of fields each, whose names are all the same or all different."""
    base = Forge.ADDRESS
    count, fields = 1000, 1000
    names = bytes(8) + name(b"*main.T").ljust(16, b"\0") + name(b"main").ljust(16, b"\0")
    own = b"".join(name(b"%06d" % n) for n in range(1 if same else count * fields))
    start = len(names) + len(own) + -len(own) % 8
    types = start + 24 * count * fields
    array = b"".join(
        struct.pack("<QQQ", base + len(names) + (0 if same else 8 * n), base + types, 0)
        for n in range(count * fields)
    )
    segment = names + own.ljust(start - len(names), b"\0") + array + descriptor(base, 8, 24, 0, 0)
    segment += b"".join(descriptor(base, 8, 24, base + start + 24 * fields * n, fields) for n in range(count))
    forge.types(len(segment))
    assert apart(hostile.attack_file, forge.write(tmp_path / "fields", segment)) == []


def test_structs_that_double_at_each_depth(forge: Forge, tmp_path: Path) -> None:
    """Thirty structs, each with two fields of the next one's type: a billion fields if each were followed."""
    base = Forge.ADDRESS
    names = (
        bytes(8)
        + name(b"*main.T").ljust(16, b"\0")
        + name(b"main").ljust(16, b"\0")
        + name(b"f").ljust(24, b"\0")
    )
    depth = 31
    start = 64 + 48 * depth
    size = len(descriptor(base, 0, 0, 0, 0))
    arrays = b"".join(
        struct.pack("<QQQ", base + 40, base + start + size * (n + 1), 0)
        + struct.pack("<QQQ", base + 41, base + start + size * (n + 1), 8)
        for n in range(depth)
    )
    structs = b"".join(descriptor(base, 8, 24, base + 64 + 48 * n, 2) for n in range(depth))
    segment = names + arrays + structs + descriptor(base, 8, 24, 0, 0)
    forge.types(len(segment))
    assert apart(hostile.attack_file, forge.write(tmp_path / "doubling", segment)) == []


def test_a_struct_that_contains_itself(forge: Forge, tmp_path: Path) -> None:
    base = Forge.ADDRESS
    names = (
        bytes(8)
        + name(b"*main.T").ljust(16, b"\0")
        + name(b"main").ljust(16, b"\0")
        + name(b"f").ljust(24, b"\0")
    )
    segment = names + struct.pack("<QQQ", base + 40, base + 88, 0) + descriptor(base, 8, 24, base + 64, 1)
    forge.types(len(segment))
    path = forge.write(tmp_path / "cycle", segment)
    assert apart(hostile.attack_file, path) == []
    with Executable(str(path)) as executable:
        assert executable.structs(["main.T"]) == {}


def test_nothing_but_kind_bytes(forge: Forge, tmp_path: Path) -> None:
    segment = bytes(8) + bytes((7, 8, 8, 25)) * (8 << 20)
    forge.types(len(segment))
    assert apart(hostile.attack_file, forge.write(tmp_path / "kinds", segment)) == []


def test_a_hole_of_a_terabyte(forge: Forge, tmp_path: Path) -> None:
    forge.types(1 << 40)
    path = forge.write(tmp_path / "hole", b"", size=1 << 40)
    assert apart(hostile.attack_file, path) == []


def test_a_hole_of_a_terabyte_to_search_for_build_info(forge: Forge, tmp_path: Path) -> None:
    forge.data = bytearray(bytes(forge.data).replace(b"\xff Go buildinf:", b"\xff No buildinf:"))
    path = forge.write(tmp_path / "hole", b"", size=1 << 40)
    assert apart(hostile.attack_file, path) == []


def test_a_function_table_with_gaps(forge: Forge, tmp_path: Path) -> None:
    """Every other function's record is as far away as allowed."""
    for number in range(forge.table.functions):
        struct.pack_into("<I", forge.data, forge.functab + 8 * number + 4, (number % 2) * (31 << 20))
    assert apart(hostile.attack_file, forge.write(tmp_path / "gaps", bytes(64))) == []


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_a_function_table_out_of_step(forge: Forge, tmp_path: Path, shift: int) -> None:
    at = forge.functab + 8 * (forge.table.functions - 1) + 4
    struct.pack_into("<I", forge.data, at, struct.unpack_from("<I", forge.data, at)[0] + shift)
    assert apart(hostile.attack_file, forge.write(tmp_path / "step", bytes(64))) == []


def test_two_million_functions(forge: Forge, tmp_path: Path) -> None:
    """A table of functions that all have the wanted name."""
    base, count = Forge.ADDRESS, 2 << 20
    names = b"main.main\0".ljust(64, b"\0")
    functab = b"".join(struct.pack("<II", 16 * number, 0) for number in range(0, count + 2, 1))
    offsets = (128, 192, 192, 192, 192)
    segment = (
        struct.pack("<IHBBQQQ5Q", 0xFFFFFFF1, 0, 1, 8, count, 0, 0, *offsets).ljust(128, b"\0")
        + names
        + functab
    )
    forge.word(forge.header, 0)  # the real one is gone
    forge.word(
        forge.moduledata, base, base + 128, 64, 64, base + 192, 0, 0, base + 192, 0, 0, base + 192, 0, 0,
        base + 192, len(functab), len(functab), base + 192, count + 1,
    )  # fmt: skip
    assert apart(hostile.attack_file, forge.write(tmp_path / "functions", segment)) == []


@pytest.mark.parametrize(
    "text", [b"dep\n", b"dep\ta\tb\tc\n", b"build\ta=b\n", b"=>\t\n", b"\t", b'build\t"\\\\']
)
def test_build_info_without_end(text: bytes, tmp_path: Path, source: Path) -> None:
    data = bytearray(golang.build(source, mode="no-sections").read_bytes())
    body = text * ((1 << 20) // len(text))
    length = len(body)
    blob = b"\xff Go buildinf:".ljust(32, b"\0") + name(b"go1.27.4")[1:]
    blob = (
        blob[:15]
        + b"\x02"
        + blob[16:]
        + bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))
        + body
    )
    forge = Forge(golang.build(source))
    forge.data = bytearray(bytes(data).replace(b"\xff Go buildinf:", b"\xff No buildinf:"))
    assert apart(hostile.attack_file, forge.write(tmp_path / "text", blob)) == []


def test_what_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("#!/bin/sh\n" * 100)
    os.mkfifo(tmp_path / "fifo")
    for path in (*tmp_path.iterdir(), tmp_path, Path("/dev/zero"), Path("/proc/self/mem")):
        with pytest.raises(NotGoError, match=f"{path}: "):
            Executable(str(path))
    for missing in (tmp_path / "nothing", Path("\0")):
        with pytest.raises(ExecutableError, match="can't be opened"):
            Executable(str(missing))


def test_other_machines_are_named(source: Path, tmp_path: Path) -> None:
    data = bytearray(golang.build(source).read_bytes())
    struct.pack_into("<H", data, 18, 243)
    (tmp_path / "riscv").write_bytes(data)
    with pytest.raises(UnsupportedError, match="machine 243; only amd64 and arm64"):
        Executable(str(tmp_path / "riscv"))


def test_a_file_that_shrinks_while_it_is_read(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(golang.build(source).read_bytes())
    with Executable(str(path)) as executable:
        os.truncate(path, 4096)
        with pytest.raises(ExecutableError, match="shrank while it was read"):
            executable.all_structs()


def test_an_open_file_is_read_though_its_name_is_gone(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "deleted"
    path.write_bytes(golang.build(source).read_bytes())
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    with Executable(str(path), fd=fd) as executable:
        assert executable.functions(["main.main"])
    os.close(fd)
