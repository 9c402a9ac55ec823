"""The function table every Go program carries for its own tracebacks; stripping can't remove it.

Layout of Go 1.18 and later (runtime/symtab.go: pcHeader, functab, _func): a header with the offsets of its parts;
`functab`, pairs of u32 (entry offset from the text's start, offset of the _func), one more entry than functions; each
_func begins with its entry offset again and the offset of its name in the name table.
"""

import struct
from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from agent.executable.elf import Image
from agent.executable.errors import CorruptError, LimitError

_MIN_LC = {"amd64": 1, "arm64": 4}
_OLD_MAGICS = {0xFA, 0xFB}
"""Lowest bytes of the magics of Go 1.16 and 1.2, whose tables are laid out differently (debug/gosym)."""

_MAX_FUNCTIONS = 2 << 20
_MAX_NAMES = 64 << 20
_VENDOR = b"vendor/"

_MAX_COPIES = 64
_MAX_NAME_COUNT = 4 << 20
_PART = 1 << 16
"""Bytes of names looked at together."""
_BATCH = 8192
_MAX_SPAN = 32 << 20


@dataclass(frozen=True, slots=True)
class Pclntab:
    """A function table: addresses of its parts; `functions` is how many it lists. Magic ..f0 is Go 1.18, ..f1 1.20."""

    address: int
    magic: int
    functions: int
    names: int
    names_end: int
    functab: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A function: offset from the text's start and size up to the next one, in bytes (so padding is included)."""

    name: str
    offset: int
    size: int


def find_pclntab(image: Image) -> Iterator[Pclntab]:
    """Candidates for the function table, likeliest first: by section, else by its magic in what isn't code."""
    for section in (".gopclntab", ".data.rel.ro.gopclntab"):
        if section in image.sections:
            table = parse_header(image, image.sections[section][0])
            if table is not None:
                yield table
    # The lowest byte of the magic numbers the format; those to come are tried with the newest layout known.
    pattern = b"\xff\xff\xff\0\0" + bytes([_MIN_LC[image.arch], 8])
    # Code last: only gold puts read-only data beside it. First what is likeliest: of a position-independent program,
    # data that is relocated.
    for segment in sorted(image.segments, key=lambda one: (one.executable, one.writable is not image.pie)):
        for address in image.find(pattern, segment.address, segment.end):
            if address % 8 == 1 and address > segment.address:
                table = parse_header(image, address - 1)
                if table is not None:
                    yield table


def parse_header(image: Image, address: int) -> Pclntab | None:
    """Return the function table at `address`, or None if what stands there is none."""
    if image.segment(address, 72) is None:
        return None
    magic, pad, min_lc, pointer, functions, _, _, names, cus, files, pcs, functab = struct.unpack(
        "<IHBBQQQQQQQQ", image.read(address, 72)
    )
    if not 0xFFFFFFF0 <= magic <= 0xFFFFFFFF or magic & 0xFF in _OLD_MAGICS:
        return None
    if pad or min_lc != _MIN_LC[image.arch] or pointer != 8 or not 0 < functions <= _MAX_FUNCTIONS:
        return None
    if not 64 <= names <= cus <= files <= pcs <= functab or cus - names > _MAX_NAMES:
        return None
    if image.segment(address, functab + 8 * functions + 4) is None:
        return None
    return Pclntab(address, magic, functions, address + names, address + cus, address + functab)


def find_entries(image: Image, table: Pclntab, names: Collection[str]) -> Mapping[str, list[Entry]]:
    """Return the functions called by one of `names`, or by one of them behind `vendor/` or `*/vendor/`; by wanted name.

    Where a name is in the table twice, the larger body is the function and the other its ABI wrapper (cmd/internal/obj:
    ABI0 and ABIInternal); instances of generic functions share a name that ends in `[...]` and are all kept. Raises
    CorruptError if the table is damaged.
    """
    offsets = _name_offsets(image, table, names)
    found: dict[str, list[Entry]] = {}
    for name_offset, entry_offset, size in _by_name_offset(image, table, offsets.keys()):
        name, wanted = offsets[name_offset]
        entries = found.setdefault(wanted, [])
        if len(entries) >= _MAX_COPIES:
            raise LimitError(f"lists function {wanted} more than {_MAX_COPIES} times")
        entries.append(Entry(name, entry_offset, size))
    return {wanted: _without_wrappers(entries) for wanted, entries in found.items()}


def _without_wrappers(entries: list[Entry]) -> list[Entry]:
    largest: dict[str | int, Entry] = {}
    for entry in entries:
        key = entry.offset if "[...]" in entry.name else entry.name
        if key not in largest or entry.size > largest[key].size:
            largest[key] = entry
    return sorted(largest.values(), key=lambda entry: entry.offset)


def _name_offsets(image: Image, table: Pclntab, names: Collection[str]) -> dict[int, tuple[str, str]]:
    """Offset in the name table to (name there, name wanted).

    One pass over all names, a part of the table at a time: to search for each wanted name would read it hundreds of
    times.
    """
    wanted = {name.encode(): name for name in names if name}
    own_names = frozenset(wanted)
    data = image.read(table.names, table.names_end - table.names)
    found: dict[int, tuple[str, str]] = {}
    start = count = 0
    while start < len(data):
        end = data.rfind(b"\0", start, start + _PART) + 1 or len(data)
        part = data[start:end]
        here = part.split(b"\0")
        count += len(here)
        if count > _MAX_NAME_COUNT:
            raise LimitError("lists more function names than any real program")
        # Whether there is one is told without a step of Python for each name.
        if not own_names.isdisjoint(here):
            hits = [index for index, name in enumerate(here) if name in own_names]
            # A NUL before each but the first.
            ends = list(accumulate(map(len, here), initial=0))
            found.update((start + ends[index] + index, (wanted[here[index]],) * 2) for index in hits)
        first, *copies = part.split(_VENDOR)
        at = len(first)
        for copy in copies:
            own = copy.partition(b"\0")[0]
            if own in wanted and (at == 0 or part[at - 1] in b"\0/"):
                begin, end_of_own = part.rfind(b"\0", 0, at) + 1, at + len(_VENDOR) + len(own)
                found[start + begin] = (part[begin:end_of_own].decode("utf-8", "replace"), wanted[own])
            at += len(_VENDOR) + len(copy)
        start = end
    return found


def _by_name_offset(image: Image, table: Pclntab, wanted: Collection[int]) -> Iterator[tuple[int, int, int]]:
    """(name offset, entry offset, size) of each function whose name offset is wanted.

    One pass over all functions in batches. The _funcs stand in the functab's order, so a batch's are one short range.
    """
    wanted = frozenset(wanted)
    if not wanted:
        return
    for first in range(0, table.functions, _BATCH):
        count = min(_BATCH, table.functions - first)
        functab = array("I", image.read(table.functab + 8 * first, 8 * count + 4))
        where = functab[1::2]
        low, high = min(where), max(where)
        if high - low > _MAX_SPAN or low & 3:
            raise CorruptError("has a function table that is out of order")
        words = memoryview(image.read(table.functab + low, (high - low & ~3) + 8)).cast("I")
        base = (low >> 2) - 1
        name_offsets = [words[(offset >> 2) - base] for offset in where]
        if wanted.isdisjoint(name_offsets):
            continue
        for index, name_offset in enumerate(name_offsets):
            if name_offset in wanted:
                entry, end = functab[2 * index], functab[2 * index + 2]
                if entry >= end:
                    raise CorruptError("has a function table that is out of order")
                yield name_offset, entry, end - entry
