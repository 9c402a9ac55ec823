"""Go's runtime type information: type descriptors, read one by one (internal/abi/type.go, before 1.21 runtime/type.go).

Descriptors survive stripping, because the running program needs them. This room knows their bytes; what is made of them
stands in structs.py, maps.py and itabs.py.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.executable.elf import Image
from agent.executable.errors import CorruptError

TYPE_SIZE = 48
NAME_OFFSET = 40
STRUCT_SIZE = 80
FIELD_SIZE = 24

ARRAY, INTERFACE, MAP, POINTER, STRUCT = 17, 20, 21, 22, 25
"""Kinds (abi.Kind), the low five bits of the descriptor's kind byte."""

UNCOMMON, EXTRA_STAR, NAMED = 1, 2, 4
"""abi.TFlag: has a package path · the string has a `*` too many · is a defined type."""

_EMBEDDED = 8
"""Flag in a field's name (abi.NewName)."""

_UNCOMMON_AT = {ARRAY: 72, 18: 64, 19: 56, INTERFACE: 80, POINTER: 56, 23: 56, STRUCT: 80}
"""Size of each kind's descriptor, behind which the uncommon part stands.

They are array, chan, func, interface, pointer, slice and struct; all others have 48, but maps, which changed.
"""

_MAP_SIZES = (88, 112, 136, 96, 104, 120, 128, 144, 152)
"""Sizes of a map's descriptor: up to 1.23, up to 1.26, 1.27, and what might come."""

_MAX_NAME = 1 << 14
_MAX_FIELDS = 1 << 14


@dataclass(frozen=True, slots=True)
class Type:
    """The common head of a descriptor: size of a value in bytes, flags, kind, offset of its string from `types`."""

    size: int
    flags: int
    kind: int
    name: int


@dataclass(frozen=True, slots=True)
class RawField:
    """A struct's field: its offset in bytes and the address of its type's descriptor."""

    name: str
    type: int
    offset: int
    embedded: bool


def parse_type(data: bytes) -> Type:
    """Return the head of a descriptor from its first 48 bytes."""
    size, flags, kind, name = struct.unpack_from("<Q12xB2xB16xi", data)
    return Type(size, flags, kind & 31, name)


def read_name(image: Image, address: int) -> tuple[str, bool]:
    """Return a name (abi.Name: flags, uvarint length, bytes) and whether it is that of an embedded field.

    Raises CorruptError.
    """
    head = image.read_up_to(address, 64)
    if len(head) < 2:
        raise CorruptError(f"has a name at {address:#x}, cut off by the segment's end")
    length, start = head[1], 2
    if length & 0x80:
        length = length & 0x7F | head[2] << 7 if len(head) > 2 else _MAX_NAME
        start = 3
    if length >= _MAX_NAME or head[0] > 15:
        raise CorruptError(f"has no name at {address:#x}, where one should be")
    name = (
        head[start : start + length] if start + length <= len(head) else image.read(address + start, length)
    )
    return name.decode("utf-8", "replace"), bool(head[0] & _EMBEDDED)


def read_fields(
    image: Image, descriptor: int, names: dict[int, tuple[str, bool]] | None = None
) -> Iterator[RawField]:
    """Return the fields of the struct described at `descriptor`, in order. Raises CorruptError.

    `names` takes up what `read_name` gave at each address: the linker keeps a name once, however many fields have it.
    """
    names = {} if names is None else names
    (size,) = struct.unpack("<Q", image.read(descriptor, 8))
    address, count = struct.unpack("<QQ", image.read(descriptor + 56, 16))
    if count > _MAX_FIELDS:
        raise CorruptError(f"has a struct of {count} fields at {descriptor:#x}")
    if not count:
        return
    for name_at, type_at, offset in struct.iter_unpack("<QQQ", image.read(address, FIELD_SIZE * count)):
        known = names.get(name_at)
        if known is None:
            known = names[name_at] = read_name(image, name_at)
        name, embedded = known
        if offset > size:
            raise CorruptError(f"has a struct at {descriptor:#x} whose field {name} lies outside it")
        yield RawField(name, type_at, offset, embedded)


def package_path(image: Image, types: int, descriptor: int, kind: int) -> str:
    """Return the package of a defined type, as found (so it may be vendored), or empty.

    Not for maps. Raises CorruptError.
    """
    (offset,) = struct.unpack("<i", image.read(descriptor + _UNCOMMON_AT.get(kind, TYPE_SIZE), 4))
    return read_name(image, types + offset)[0] if offset > 0 else ""


def map_package_paths(image: Image, types: int, descriptor: int) -> Iterator[tuple[int, str]]:
    """For a defined map type: (descriptor size, package path) for each size that a release may have given it."""
    for size in _MAP_SIZES:
        try:
            (offset,) = struct.unpack("<i", image.read(descriptor + size, 4))
            if offset > 0:
                yield size, read_name(image, types + offset)[0]
        except CorruptError:
            continue


def type_part(text: str) -> str:
    """Return the type's own name in its string: `Pointer[net/http.response]` of `atomic.Pointer[net/http.response]`."""
    bracket = text.find("[")
    dot = text.find(".", 0, bracket if bracket >= 0 else len(text))
    return text[dot + 1 :]
