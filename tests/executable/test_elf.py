"""What is in an ELF file, against what the Go command and pyelftools say."""

import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection

from agent.executable import CorruptError, Executable, ExecutableError
from agent.executable.elf import Image
from agent.executable.source import Source
from tests.support import golang
from tests.support.golang import VERSIONS


@pytest.mark.parametrize("go", VERSIONS)
def test_build_id(go: str) -> None:
    program = golang.build("allstd", go=go)
    with Executable(str(program)) as executable:
        assert executable.build_id == golang.go_tool("tool", "buildid", str(program), go=go).strip()


def test_gnu_build_id(tmp_path: Path) -> None:
    program = golang.build("allstd", mode="pie-external-strip", tags=["small"])
    with program.open("rb") as file:
        notes = [
            note
            for section in ELFFile(file).iter_sections()
            if isinstance(section, NoteSection)
            for note in section.iter_notes()
        ]
        (expected,) = (note["n_desc"] for note in notes if note["n_type"] == "NT_GNU_BUILD_ID")
    with Executable(str(program)) as executable:
        assert executable.gnu_build_id == expected
    plain = golang.build(_empty(tmp_path), go="1.19.13")
    with Executable(str(plain)) as executable:
        assert executable.gnu_build_id == ""


def _empty(directory: Path) -> Path:
    (directory / "go.mod").write_text("module example.com/empty\ngo 1.19\n")
    (directory / "main.go").write_text("package main\nfunc main() {}\n")
    return directory


@pytest.mark.parametrize("mode", ["stripped", "pie-gold-strip", "pie-relr-strip"])
def test_segments_and_sections(mode: str) -> None:
    program = golang.build("allstd", mode=mode, tags=["small"])
    with program.open("rb") as file, Source(str(program)) as source:
        elf, image = ELFFile(file), Image(source)
        loads = [
            segment
            for segment in elf.iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
        ]
        assert [(s.address, s.size, s.offset) for s in image.segments] == [
            (load["p_vaddr"], load["p_filesz"], load["p_offset"]) for load in loads
        ]
        for section in elf.iter_sections():
            if section["sh_flags"] & 2 and section["sh_type"] != "SHT_NOBITS" and section["sh_size"]:
                assert image.sections[section.name] == (section["sh_addr"], section["sh_size"])
                assert image.file_offset(section["sh_addr"]) == section["sh_offset"]
                assert image.read(section["sh_addr"], 1) == section.data()[:1]


def test_relocations_that_are_not_in_place_are_applied() -> None:
    full = golang.build("allstd", mode="pie", tags=["small"])
    empty = golang.build("allstd", mode="pie-empty-targets", tags=["small"])
    with Source(str(full)) as one, Source(str(empty)) as other:
        a, b = Image(one), Image(other)
        different = 0
        for segment in a.segments:
            if segment.writable:
                for (at, left), (_, right) in zip(
                    a.chunks(segment.address, segment.end),
                    b.chunks(segment.address, segment.end),
                    strict=True,
                ):
                    assert left == right
                    different += left != other.read(b.file_offset(at), len(left))
        assert different


def test_reading_outside_is_an_error() -> None:
    with Source(str(golang.build("allstd", tags=["small"]))) as source:
        image = Image(source)
        last = image.segments[-1]
        assert len(image.read(last.end - 8, 8)) == 8
        for address, size in (
            (0, 1),
            (last.end - 8, 9),
            (last.end, 1),
            (image.segments[0].address, 1 << 40),
            (1 << 64, 8),
        ):
            with pytest.raises(CorruptError, match="in no segment"):
                image.read(address, size)


@pytest.mark.parametrize("mode", ["stripped", "pie-empty-targets"])
def test_what_is_kept_is_read_as_before(mode: str) -> None:
    with Source(str(golang.build("allstd", mode=mode, tags=["small"]))) as source:
        image, other = Image(source), Image(source)
        whole = next(segment for segment in image.segments if segment.writable)
        start, end = whole.address + whole.size // 4 & ~7, whole.end - whole.size // 4 & ~7
        assert image.keep(start, end) == other.read(start, end - start)
        for at in range(start - 16, end - 8, max(8, (end - start) // 999 & ~7)):
            assert image.read(at, 24) == other.read(at, 24)
            assert image.read_up_to(at, 64) == other.read_up_to(at, 64)
        assert image.read_up_to(whole.end - 5, 64) == other.read(whole.end - 5, 5)
        # A second range takes the place of the first, one that is too large of none.
        assert image.keep(whole.address, start) == other.read(whole.address, start - whole.address)
        assert image.keep(start, start + (64 << 20)) is None
        assert image.read(start - 8, 16) == other.read(start - 8, 16)
        with pytest.raises(CorruptError):
            image.keep(whole.address, whole.end + 1)


def test_find_crosses_chunks(tmp_path: Path) -> None:
    data = bytearray(golang.build("allstd", tags=["small"]).read_bytes())
    with Source(str(golang.build("allstd", tags=["small"]))) as source:
        segment = max(Image(source).segments, key=lambda segment: segment.size)
    at = segment.offset + (1 << 20) - 4
    data[at : at + 8] = b"\xf7needle\xf7"
    (tmp_path / "program").write_bytes(data)
    with Source(str(tmp_path / "program")) as source:
        image = Image(source)
        address = segment.address + (1 << 20) - 4
        assert list(image.find(b"\xf7needle\xf7", segment.address, segment.end)) == [address]
        assert list(image.find(b"\xf7needle\xf7", segment.address, segment.end, align=4)) == [address]
        assert list(image.find(b"\xf7needle\xf7", segment.address, segment.end, align=8)) == []


def test_a_truncated_program_says_so(tmp_path: Path) -> None:
    data = golang.build("allstd", tags=["small"]).read_bytes()
    (tmp_path / "program").write_bytes(data[: len(data) // 2])
    with pytest.raises(
        ExecutableError, match=r"program: is truncated: its segment at 0x[0-9a-f]+ ends at offset"
    ):
        Executable(str(tmp_path / "program"))


MAIN = 'package main\n\nimport "example.com/lib"\n\nfunc main() { println(lib.New().Do()) }\n'
LIB = """package lib

type Thing struct { Pad byte; Value int }

//go:noinline
func New() any { return &Thing{} }
//go:noinline
func (t *Thing) Do() int { return t.Value }
"""


def test_copies_vendored_without_modules(tmp_path: Path) -> None:
    """Without modules, a vendored package's path begins with that of the package it was copied into."""
    app = tmp_path / "src" / "example.com" / "app"
    lib = app / "vendor" / "example.com" / "lib"
    lib.mkdir(parents=True)
    (app / "main.go").write_text(MAIN)
    (lib / "lib.go").write_text(LIB.replace("New() any", "New() *Thing"))
    environment = golang.environment("1.19.13") | {"GO111MODULE": "off", "GOPATH": str(tmp_path)}
    # The toolchain itself is a module and is looked up in GOPATH, so its go command is called directly.
    root = golang.go_tool("env", "GOROOT", go="1.19.13").strip()
    subprocess.run(
        [f"{root}/bin/go", "build", "-ldflags=-s -w", "-o", tmp_path / "program", "."],
        cwd=app,
        env=environment,
        check=True,
    )
    with Executable(str(tmp_path / "program")) as executable:
        functions = executable.functions(["example.com/lib.New", "example.com/lib.(*Thing).Do"])
        struct = executable.structs(["example.com/lib.Thing"])["example.com/lib.Thing"]
    assert {name: function.name for name, (function,) in functions.items()} == {
        "example.com/lib.New": "example.com/app/vendor/example.com/lib.New",
        "example.com/lib.(*Thing).Do": "example.com/app/vendor/example.com/lib.(*Thing).Do",
    }
    assert struct.package == "example.com/app/vendor/example.com/lib"
    assert struct.offset("Value") == 8
