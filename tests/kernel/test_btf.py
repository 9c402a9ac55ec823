from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from agent.kernel import btf
from agent.kernel.btf import Array, BtfError, Enum, Integer, Struct


class Types:
    """Builds a .BTF section; each method adds a type and gives its number."""

    def __init__(self) -> None:
        self.types = b""
        self.strings = b"\0"
        self.count = 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(
        self, kind: int, name: str, word: int, tail: bytes = b"", *, entries: int = 0, flag: bool = False
    ) -> int:
        self.types += struct.pack("<III", self.name(name), flag << 31 | kind << 24 | entries, word) + tail
        self.count += 1
        return self.count

    def integer(self, name: str, size: int, encoding: int = 0, bits: int | None = None) -> int:
        return self.add(1, name, size, struct.pack("<I", encoding << 24 | (bits or size * 8)))

    def struct(
        self, name: str, size: int, *members: tuple[str, int, int], kind: int = 4, flag: bool = False
    ) -> int:
        tail = b"".join(struct.pack("<III", self.name(one), number, bits) for one, number, bits in members)
        return self.add(kind, name, size, tail, entries=len(members), flag=flag)

    def data(self) -> bytes:
        types, strings = len(self.types), len(self.strings)
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, types, types, strings)
        return header + self.types + self.strings


def test_members_of_a_struct_with_their_tags() -> None:
    types = Types()
    u16, s64 = types.integer("unsigned short", 2), types.integer("long", 8, encoding=1)
    char = types.integer("char", 1, encoding=1)
    const = types.add(10, "", u16)
    alias = types.add(8, "u16", const)
    array = types.add(3, "", 0, struct.pack("<III", char, u16, 5))
    record = types.struct("record", 32, ("first", alias, 0), ("second", s64, 64), ("text", array, 128))
    types.add(17, "go:net/http.Request.Method", record, struct.pack("<i", 0))
    types.add(17, "another", record, struct.pack("<i", 0))
    types.add(17, "of the struct itself", record, struct.pack("<i", -1))

    found = btf.parse(types.data()).struct("record")

    assert found.size == 32
    assert [(one.name, one.offset, one.tags) for one in found.members] == [
        ("first", 0, ("go:net/http.Request.Method", "another")),
        ("second", 8, ()),
        ("text", 16, ()),
    ]
    assert found.members[0].type == Integer("unsigned short", 2)
    assert found.members[1].type == Integer("long", 8, signed=True)
    assert found.members[2].type == Array(Integer("char", 1, signed=True), 5)
    assert found.members[2].type.size == 5


def test_enums_of_both_widths() -> None:
    types = Types()
    small = struct.pack("<IiIi", types.name("A"), 3, types.name("B"), -1)
    types.add(6, "small", 4, small, entries=2)
    wide = struct.pack("<III", types.name("C"), 0xFFFFFFFF, 0x7FFFFFFF)
    types.add(19, "wide", 8, wide, entries=1)
    negative = struct.pack("<III", types.name("D"), 0xFFFFFFFE, 0xFFFFFFFF)
    types.add(19, "", 8, negative, entries=1, flag=True)

    found = btf.parse(types.data())

    assert found.constants == {"A": 3, "B": -1, "C": 0x7FFFFFFFFFFFFFFF, "D": -2}
    assert set(found.enums) == {"small", "wide"}
    assert found.enums["wide"] == Enum("wide", 8, False, {"C": 0x7FFFFFFFFFFFFFFF})


def test_struct_that_is_not_there() -> None:
    with pytest.raises(BtfError, match="no struct missing"):
        btf.parse(Types().data()).struct("missing")


def _bit_field(flag: bool) -> bytes:
    types = Types()
    number = types.integer("int", 4)
    types.struct("odd", 4, ("bits", number, 3 << 24 if flag else 3), flag=flag)
    return types.data()


def _cycle() -> bytes:
    types = Types()
    types.add(8, "self", 1)
    types.struct("odd", 4, ("member", 1, 0))
    return types.data()


def _outside() -> bytes:
    types = Types()
    types.struct("odd", 4, ("member", types.integer("int", 4), 8))
    return types.data()


def _unknown_number() -> bytes:
    types = Types()
    types.struct("odd", 4, ("member", 99, 0))
    return types.data()


def _void_member() -> bytes:
    types = Types()
    types.struct("odd", 4, ("member", 0, 0))
    return types.data()


def _no_size() -> bytes:
    types = Types()
    types.struct("odd", 4, ("member", types.add(13, "", 0), 0))
    return types.data()


def _half_integer() -> bytes:
    types = Types()
    types.struct("odd", 4, ("member", types.integer("int", 4, bits=7), 0))
    return types.data()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_bit_field(True), "odd.bits is a bit field"),
        (_bit_field(False), "odd.bits is a bit field"),
        (_cycle(), "contains itself"),
        (_outside(), "odd.member reaches beyond the struct's 4 bytes"),
        (_unknown_number(), "refers to type 99 of 1"),
        (_void_member(), "refers to type 0"),
        (_no_size(), "has no size"),
        (_half_integer(), "int is not made of whole bytes"),
    ],
)
def test_struct_that_can_not_be_used(data: bytes, reason: str) -> None:
    with pytest.raises(BtfError, match=reason):
        btf.parse(data).struct("odd")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "only 0 bytes"),
        (b"\x9f\xeb\x01", "only 3 bytes"),
        (b"\xeb\x9f\x01" + bytes(30), "no little-endian BTF"),
        (_outside()[:-3], "cut short"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 13, 13, 1) + bytes(14), "kind 0 at byte 0"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 4, 4, 1) + bytes(5), "cut short at byte 0"),
        (
            struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1)
            + struct.pack("<III", 0, 4 << 24 | 9, 4)
            + b"\0",
            "cut short at byte 12",
        ),
        (
            struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1)
            + struct.pack("<III", 7, 2 << 24, 0)
            + b"\0",
            "a name lies at 7",
        ),
        (bytes((16 << 20) + 1), "are not read"),
    ],
)
def test_corrupt_section(data: bytes, reason: str) -> None:
    with pytest.raises(BtfError, match=reason):
        btf.parse(data)


def _readable(data: bytes) -> bool:
    """Tell whether all structs can be read; anything but a BtfError is a mistake."""
    try:
        found = btf.parse(data)
        for name in found.structs:
            found.struct(name)
    except BtfError:
        return False
    return True


def test_every_truncation_is_noticed_and_no_flipped_bit_does_harm() -> None:
    types = Types()
    number = types.integer("int", 4)
    inner = types.struct("inner", 8, ("a", number, 0), ("b", number, 32))
    array = types.add(3, "", 0, struct.pack("<III", inner, number, 2))
    types.struct("outer", 24, ("x", inner, 0), ("y", array, 64))
    whole = types.data()
    assert _readable(whole)
    assert not any(_readable(whole[:length]) for length in range(len(whole)))
    flipped = [
        whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :]
        for position in range(len(whole))
        for bit in (1, 0x80)
    ]
    refused = sum(not _readable(data) for data in flipped)
    assert 0 < refused < len(flipped)


def test_compiled_object(probes: str) -> None:
    found = btf.read(probes)

    layout = found.struct("layout")
    tags = {one.name: one.tags for one in layout.members}
    assert tags["method"] == ("go:net/http.Request.Method",)
    assert tags["url"] == ("go:net/http.Request.URL",)
    assert isinstance(layout.members[2].type, Array)
    assert isinstance(layout.members[2].type.element, Struct)
    assert found.constants["OUTCOME_LOST"] == 7
    variables = found.variables
    assert variables["hits"].section == ".bss"
    assert {variables["hits"].offset, variables["lost"].offset} == {0, 8}
    assert variables["negative"].type == Integer("long long", 8, signed=True)
    constants = {name: one for name, one in variables.items() if one.section == ".rodata"}
    assert set(constants) == {
        "by_ring", "with_cookie", "filling", "discard_every", "wake_above", "preset", "greeting",
    }  # fmt: skip
    assert len({one.offset for one in constants.values()}) == len(constants)


def test_file_that_is_no_object(tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"no ELF at all")
    with pytest.raises(BtfError, match=r"odd is no BPF object that can be read: elf: .*is not a proper ELF"):
        btf.read(str(path))


def test_object_without_types(tmp_path: Path) -> None:
    source, path = tmp_path / "bare.c", tmp_path / "bare.bpf.o"
    source.write_text('__attribute__((section("uprobe"))) int probe(void *context) { return 0; }\n')
    subprocess.run(["clang", "-O2", "-target", "bpf", "-c", source, "-o", path], check=True)
    with pytest.raises(BtfError, match=r"has no .BTF section; compile it with clang -g"):
        btf.read(str(path))


def test_program_instead_of_an_object() -> None:
    with pytest.raises(BtfError, match=r"is no BPF object that can be read: elf: .*not a valid eBPF object"):
        btf.read("/proc/self/exe")
