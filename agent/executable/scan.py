"""Finding descriptors of one kind among all types, without walking them.

A descriptor is 8-aligned, and three of its bytes nearly give it away: kind, alignment and flags. So the types
are sliced with stride 8, each slice is turned into zeros and ones by a table, and the slices are ANDed as big
integers: every step runs at C speed, and its cost hardly depends on how many types there are.
"""

from collections.abc import Collection, Iterator

from agent.executable import rtti
from agent.executable.elf import Image
from agent.executable.errors import CorruptError

_FLAGS_AT, _ALIGN_AT, _KIND_AT = 20, 22, 23
_OVERLAP = 24
_MAX_CANDIDATES = 1 << 19
_MAX_NAME = 1 << 10
_MAX_LOADED = 32 << 20
"""Types up to this size are read at once (the largest seen has 19 MB), larger ones name by name."""

_ALIGN = bytes(value in (1, 2, 4, 8) for value in range(256))
_NAMED = bytes(bool(value & rtti.NAMED) and value < 64 for value in range(256))
_ANY = bytes(value < 64 for value in range(256))


def descriptors(image: Image, start: int, end: int, kind: int, *, named: bool = True) -> Iterator[int]:
    """Addresses in [start, end) that look like descriptors of `kind`. Raises CorruptError where there are too
    many.
    """
    kinds = bytes(value & 31 == kind for value in range(256))
    flags = _NAMED if named else _ANY
    start += -start % 8
    found = 0
    for address, data in image.chunks(start, end, _OVERLAP):
        count = max(0, len(data) - _KIND_AT + 7) // 8
        both = int.from_bytes(data[_KIND_AT::8].translate(kinds), "little")
        both &= int.from_bytes(data[_ALIGN_AT::8][:count].translate(_ALIGN), "little")
        both &= int.from_bytes(data[_FLAGS_AT::8][:count].translate(flags), "little")
        hits = both.to_bytes(count, "little")
        at = hits.find(1)
        while at >= 0:
            yield address + 8 * at
            found += 1
            at = hits.find(1, at + 1)
        if found > _MAX_CANDIDATES:
            raise CorruptError("has more types than any Go linker makes")


def named_descriptors(
    image: Image, types: int, etypes: int, kind: int, wanted: Collection[str] | None
) -> Iterator[tuple[int, str]]:
    """(address, name without package) of each descriptor of a defined type of `kind` whose name is wanted;
    None wants all.

    What only looked like a descriptor is mostly passed over; the caller still has to check what it reads
    there.
    """
    size = etypes - types
    data = image.read(types, size) if size <= _MAX_LOADED else None
    names = None if wanted is None else frozenset(name.encode() for name in wanted)
    for address in descriptors(image, types, etypes, kind):
        at = address - types + rtti.NAME_OFFSET
        if at + 8 > size:
            continue
        head = data[at : at + 4] if data is not None else image.read(types + at, 4)
        name_at = int.from_bytes(head, "little")
        if not 0 < name_at < size - 3:
            continue
        # The string is `*http.Request`, with the package's name, not its path; a package's name has no dot.
        if data is not None:
            name = _name(data, name_at).partition(b".")[2]
        else:
            name = _name(image.read(types + name_at, min(_MAX_NAME, size - name_at)), 0).partition(b".")[2]
        if name and (names is None or name in names):
            yield address, name.decode("utf-8", "replace")


def _name(data: bytes, at: int) -> bytes:
    """Return the bytes of the abi.Name at `at`, cut where `data` ends."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        length, start = length & 0x7F | data[at + 2] << 7, at + 3
    return data[start : start + length]
