"""What is true of a program, by other means: DWARF, `go tool nm` and `go tool objdump` of the twin with symbols.

Reading DWARF takes seconds, so what it says is kept beside the program.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from tests.support import golang

Layout = tuple[int, tuple[tuple[str, int, int], ...]]
"""A struct's size and its fields: name, offset, size; all in bytes."""


def structs(program: Path) -> dict[str, set[Layout]]:
    """Every struct type in the DWARF of `program`, by name; types declared inside functions can share one."""
    kept = program.with_suffix(".structs.json")
    if not kept.exists():
        unfinished = kept.with_suffix(f".{id(kept)}")
        unfinished.write_text(json.dumps(list(_dwarf_structs(program))))
        unfinished.rename(kept)
    found: defaultdict[str, set[Layout]] = defaultdict(set)
    for name, size, fields in json.loads(kept.read_text()):
        # The compiler numbers types that functions declare (cmd/compile/internal/types: Sym.Name and Vargen).
        found[re.sub(r"·\d+", "", name)].add(
            (size, tuple((field, offset, bytes_) for field, offset, bytes_ in fields))
        )
    return found


def _dwarf_structs(program: Path) -> Iterator[tuple[str, int, list[tuple[str, int, int]]]]:
    with program.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        sizes: dict[int, int] = {}
        for unit in dwarf.iter_CUs():
            # The linker puts all types into the runtime's unit (cmd/link/internal/ld/dwarf.go: dwarfGenerateDebugInfo).
            if unit.get_top_DIE().attributes["DW_AT_name"].value != b"runtime":
                continue
            for die in unit.iter_DIEs():
                if die.tag == "DW_TAG_structure_type" and "DW_AT_name" in die.attributes:
                    name = die.attributes["DW_AT_name"].value.decode().replace("%2e", ".")
                    fields = [
                        (
                            child.attributes["DW_AT_name"].value.decode(),
                            child.attributes["DW_AT_data_member_location"].value,
                            _size(child.get_DIE_from_attribute("DW_AT_type"), sizes),
                        )
                        for child in die.iter_children()
                        if child.tag == "DW_TAG_member" and child.attributes["DW_AT_name"].value != b"_"
                    ]
                    yield name, die.attributes["DW_AT_byte_size"].value, fields


def _size(die: Any, sizes: dict[int, int]) -> int:
    """The size of the type a DIE describes; pointers, functions, maps and channels are words."""
    if die.offset not in sizes:
        if "DW_AT_byte_size" in die.attributes:
            size = die.attributes["DW_AT_byte_size"].value
        elif die.tag == "DW_TAG_typedef":
            size = _size(die.get_DIE_from_attribute("DW_AT_type"), sizes)
        else:
            size = 8
        sizes[die.offset] = size
    return sizes[die.offset]


@dataclass(frozen=True)
class Symbol:
    name: str
    address: int
    size: int


def functions(program: Path, go: str) -> list[Symbol]:
    """The functions in the symbol table of `program`, by `go tool nm`."""
    found = []
    for line in go_tool("tool", "nm", "-size", str(program), go=go).splitlines():
        address, size, kind, *name = line.split(None, 3)
        if kind in ("T", "t") and name:
            found.append(Symbol(name[0], int(address, 16), int(size)))
    return found


def go_tool(*arguments: str, go: str) -> str:
    return golang.go_tool(*arguments, go=go)


@dataclass(frozen=True)
class Line:
    """An instruction as `go tool objdump` prints it, in Go's syntax."""

    address: int
    code: bytes
    text: str


def disassembly(program: Path, go: str, symbols: str) -> dict[str, list[list[Line]]]:
    """The instructions of the functions whose name matches the pattern `symbols`; a name may stand for several."""
    found: defaultdict[str, list[list[Line]]] = defaultdict(list)
    body: list[Line] = []
    for line in go_tool("tool", "objdump", "-s", symbols, str(program), go=go).splitlines():
        head = re.match(r"TEXT (.*)\(SB\)", line)
        if head:
            body = []
            found[re.sub(r"\.abi0$", "", head[1])].append(body)
        elif line.startswith("  "):
            _, address, code, text = (
                line.strip().split("\t", 3) if "\t\t" not in line.strip() else _columns(line)
            )
            body.append(Line(int(address, 16), bytes.fromhex(code), " ".join(text.split())))
    return found


def _columns(line: str) -> tuple[str, str, str, str]:
    where, address, code, text = [part for part in line.strip().split("\t") if part][:4]
    return where, address, code, text
