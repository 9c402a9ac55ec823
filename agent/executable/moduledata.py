"""`runtime.moduledata`: where a Go program keeps its text, its types and its itabs (runtime/symtab.go).

It is found by the function table's address, which is its first word. Where the words needed here stand depends on the
Go release; for a release that isn't in the table below, the struct is described by its own type information.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.executable import rtti
from agent.executable.elf import Image
from agent.executable.errors import CorruptError, UnsupportedError
from agent.executable.pclntab import Pclntab

_WORDS = 64
_SECTIONS = (".go.module", ".noptrdata", ".data", ".data.rel.ro")
_SELF = b"*runtime.moduledata"
_MAX_TEXT_SECTIONS = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """Word indices in moduledata. From Go 1.27 itabs are a range from `types` on, before that a slice of pointers."""

    types: int
    etypes: int
    text_sections: int
    itabs: int
    itabs_are_range: bool = False
    text: int = 22


KNOWN: Mapping[int, Layout] = {
    19: Layout(types=35, etypes=36, text_sections=39, itabs=45),
    **dict.fromkeys(range(20, 26), Layout(types=37, etypes=38, text_sections=41, itabs=47)),
    26: Layout(types=37, etypes=38, text_sections=42, itabs=48),
    27: Layout(types=37, etypes=39, text_sections=45, itabs=40, itabs_are_range=True),
}
"""By the minor release of Go 1."""


@dataclass(frozen=True, slots=True)
class TextSection:
    """A part of the text that the linker put elsewhere (textsect): offsets [start, end) begin at `address`."""

    start: int
    end: int
    address: int


@dataclass(frozen=True, slots=True)
class Moduledata:
    """Addresses. Types, their names and all they refer to lie in [types, etypes).

    `known_layout` tells whether the release's layout was known or read from the program's own description.
    """

    address: int
    text: int
    text_sections: tuple[TextSection, ...]
    types: int
    etypes: int
    itabs: tuple[int, int]
    itabs_are_range: bool
    known_layout: bool

    def text_address(self, offset: int) -> int:
        """Return the address of an offset in the text (runtime: moduledata.textAddr)."""
        for section in self.text_sections:
            if section.start <= offset < section.end:
                return section.address + offset - section.start
        return self.text + offset


def find_moduledata(image: Image, table: Pclntab, minor: int | None) -> Moduledata | None:
    """Return the moduledata that points to `table`, or None. `minor` is the minor Go release, if known.

    Raises UnsupportedError if there is one, but neither a known layout nor its own description fits it.
    """
    seen = False
    for address in _candidates(image, table):
        size = min(8 * _WORDS, _room(image, address))
        if size < 8 * 50:
            continue
        words = struct.unpack_from(f"<{size // 8}Q", image.read(address, size & ~7))
        if not _points_to(words, table):
            continue
        seen = True
        known = KNOWN.get(minor) if minor is not None else None
        for layout, is_known in ((known, True), (None, False)):
            layout = layout or (None if is_known else describe(image, words))
            if layout is not None and _fits(image, words, layout):
                return _moduledata(image, address, words, layout, known=is_known)
    if seen:
        raise UnsupportedError(
            "its Go release is not known to this agent, and it lacks the type information that would describe it; "
            "update the agent"
        )
    return None


def _room(image: Image, address: int) -> int:
    segment = image.segment(address)
    return segment.end - address if segment else 0


def _candidates(image: Image, table: Pclntab) -> Iterator[int]:
    """Addresses where the table's address stands: in the sections where the linkers put it, else in any data."""
    pattern = table.address.to_bytes(8, "little")
    for name in _SECTIONS:
        if name in image.sections:
            address, size = image.sections[name]
            yield from image.find(pattern, address, address + size, align=8)
    for segment in sorted(image.segments, key=lambda segment: not segment.writable):
        if not segment.executable:
            yield from image.find(pattern, segment.address, segment.end, align=8)


def _points_to(words: tuple[int, ...], table: Pclntab) -> bool:
    """Whether the slices at the start of moduledata are the table's parts; they stand there since Go 1.16."""
    return (
        words[1] == table.names
        and words[2] == words[3]
        and words[13] == words[16] == table.functab
        and words[17] == table.functions + 1
    )


def _fits(image: Image, words: tuple[int, ...], layout: Layout) -> bool:
    types, etypes, text = words[layout.types], words[layout.etypes], words[layout.text]
    code = image.segment(text)
    return (
        0 < types < etypes
        and image.segment(types, etypes - types) is not None
        and code is not None
        and code.executable
        and 0 < words[layout.text_sections + 1] <= _MAX_TEXT_SECTIONS
    )


def _moduledata(
    image: Image, address: int, words: tuple[int, ...], layout: Layout, *, known: bool
) -> Moduledata:
    types, etypes = words[layout.types], words[layout.etypes]
    first, count = words[layout.itabs], words[layout.itabs + 1]
    if layout.itabs_are_range:
        first += types
        count = min(count, max(0, etypes - first))
    return Moduledata(
        address,
        words[layout.text],
        _text_sections(image, words[layout.text_sections], words[layout.text_sections + 1]),
        types,
        etypes,
        (first, count),
        layout.itabs_are_range,
        known,
    )


def _text_sections(image: Image, address: int, count: int) -> tuple[TextSection, ...]:
    if count <= 1:
        return ()
    return tuple(
        TextSection(start, end, base)
        for start, end, base in struct.iter_unpack("<QQQ", image.read(address, 24 * count))
    )


def describe(image: Image, words: tuple[int, ...]) -> Layout | None:
    """Return the layout of moduledata by the program's own type information, or None.

    Any two words near each other might be `types` and `etypes`. Those are, by which a description of moduledata is
    found that says that they are.
    """
    tried: set[tuple[int, int]] = set()
    for types_at in range(30, 48):
        for etypes_at in (types_at + 1, types_at + 2):
            start, end = words[types_at], words[etypes_at]
            if not 0 < start < end or (start, end) in tried or image.segment(start, end - start) is None:
                continue
            tried.add((start, end))
            for fields in _self_descriptions(image, start, end):
                if fields.get("types") == 8 * types_at and fields.get("etypes") == 8 * etypes_at:
                    layout = _layout(fields)
                    if layout is not None:
                        return layout
    return None


def _layout(fields: Mapping[str, int]) -> Layout | None:
    is_range = "itaboffset" in fields
    names = ("types", "etypes", "textsectmap", "itaboffset" if is_range else "itablinks", "text")
    if any(name not in fields or fields[name] % 8 or fields[name] // 8 >= _WORDS - 14 for name in names):
        return None
    types, etypes, sections, itabs, text = (fields[name] // 8 for name in names)
    if is_range and fields.get("itabsize") != 8 * itabs + 8:
        return None
    return Layout(types, etypes, sections, itabs, is_range, text)


def _self_descriptions(image: Image, start: int, end: int) -> Iterator[Mapping[str, int]]:
    """Field offsets of each struct in [start, end) that is called runtime.moduledata."""
    name = bytes([len(_SELF)]) + _SELF
    for address in image.find(name, start, end):
        offset = (address - 1 - start).to_bytes(4, "little")
        for at in image.find(offset, start, end, align=8):
            descriptor = at - rtti.NAME_OFFSET
            if image.segment(descriptor, rtti.STRUCT_SIZE) is None:
                continue
            header = rtti.parse_type(image.read(descriptor, rtti.TYPE_SIZE))
            if header.kind == rtti.STRUCT:
                try:
                    yield {field.name: field.offset for field in rtti.read_fields(image, descriptor)}
                except CorruptError:
                    continue
