"""Structs of a BPF object as prebuilt struct formats: records are unpacked and layouts packed with these."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from agent.kernel.btf import Array, BtfError, Enum, Integer, Struct, Type

Value: TypeAlias = "int | bool | bytes | float"

_CODES = {1: "bB", 2: "hH", 4: "iI", 8: "qQ"}


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A scalar or byte string of a struct: its flattened name, offset and size in bytes, format and tags.

    `a.b` is member b of the nested struct a, `a[1]` an element of an array; members of structs without a
    name have none either. Arrays of one-byte integers are one field of bytes, and so are unions. A tag on
    an array or on a nested struct goes for each of its fields that has none of its own.
    """

    name: str
    offset: int
    size: int
    code: str
    signed: bool
    tags: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Format:
    """A struct flattened into fields, with a little-endian `struct.Struct` of the same order and padding.

    `packer.size` is the struct's size in C. A flexible array at its end is left out: it starts there.
    """

    name: str
    fields: tuple[Field, ...]
    packer: struct.Struct

    @property
    def size(self) -> int:
        """The size of the struct in bytes."""
        return self.packer.size

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields, in the order of what `packer` unpacks."""
        return tuple(field.name for field in self.fields)

    def offset(self, name: str) -> int:
        """Give the offset of a field in bytes; raise BtfError if there is none of this name."""
        for field in self.fields:
            if field.name == name:
                return field.offset
        raise BtfError(f"struct {self.name} has no member {name}")

    def picker(self, names: Sequence[str]) -> Callable[[bytes], tuple[Any, ...]]:
        """Make a function that unpacks only these fields, in their order in the struct, which `names` must have.

        Raise BtfError for a name that isn't there or out of order.
        """
        codes, position = ["<"], 0
        for name in names:
            field = self.fields[self.names.index(name)] if name in self.names else None
            if field is None or field.offset < position:
                raise BtfError(f"struct {self.name} has no member {name} behind those before it")
            codes.append(f"{field.offset - position}x{field.code}")
            position = field.offset + field.size
        return struct.Struct("".join(codes)).unpack_from

    def unpack(self, data: bytes | bytearray | memoryview, offset: int = 0) -> dict[str, Value]:
        """Give the fields by name; for what isn't hot. Raise struct.error if the data is too short."""
        return dict(zip(self.names, self.packer.unpack_from(data, offset), strict=True))

    def pack(self, values: Mapping[str, Value], *, missing: int = 0) -> bytes:
        """Give the bytes of the struct, zero in the padding.

        Fields without a value become `missing`, cut to their width: -1 is all ones in unsigned ones.
        Byte strings are filled up with zeros. Raise BtfError for a name that isn't there, a number that
        doesn't fit, and a byte string that is too long.
        """
        unknown = values.keys() - set(self.names)
        if unknown:
            raise BtfError(f"struct {self.name} has no member {', '.join(sorted(unknown))}")
        return self.packer.pack(
            *(self._value(field, values.get(field.name), missing) for field in self.fields)
        )

    def _value(self, field: Field, value: Value | None, missing: int) -> Value:
        if field.code.endswith("s"):
            if value is None:
                return (missing & 0xFF).to_bytes(1, "little") * field.size
            if not isinstance(value, bytes) or len(value) > field.size:
                raise BtfError(f"{self.name}.{field.name} takes at most {field.size} bytes, not {value!r}")
            return value
        if value is None:
            value = missing & (1 << 8 * field.size) - 1
            return value - (1 << 8 * field.size) if field.signed and value >> 8 * field.size - 1 else value
        try:
            struct.pack("<" + field.code, value)
        except struct.error:
            raise BtfError(
                f"{self.name}.{field.name} takes {field.size} bytes, {value!r} does not fit"
            ) from None
        return value


def format_of(record: Struct) -> Format:
    """Flatten a struct; raise BtfError for what has no format, such as 16-byte integers."""
    fields = tuple(_flatten(record, "", 0, ()))
    codes, position = ["<"], 0
    for field in fields:
        if field.offset < position:
            raise BtfError(f"the members of struct {record.name} overlap at {field.name}")
        codes.append(f"{field.offset - position}x{field.code}" if field.offset > position else field.code)
        position = field.offset + field.size
    if record.size > position:
        codes.append(f"{record.size - position}x")
    return Format(record.name, fields, struct.Struct("".join(codes)))


def _flatten(kind: Type, name: str, offset: int, tags: tuple[str, ...]) -> Iterator[Field]:
    if isinstance(kind, Struct):
        if kind.union:
            yield Field(name, offset, kind.size, f"{kind.size}s", False, tags)
            return
        for member in kind.members:
            dotted = f"{name}.{member.name}" if name and member.name else name or member.name
            yield from _flatten(member.type, dotted, offset + member.offset, member.tags or tags)
    elif isinstance(kind, Array):
        element = kind.element
        if isinstance(element, Integer) and element.size == 1 and not element.boolean:
            if kind.count:
                yield Field(name, offset, kind.count, f"{kind.count}s", False, tags)
            return
        for index in range(kind.count):
            yield from _flatten(element, f"{name}[{index}]", offset + index * element.size, tags)
    elif isinstance(kind, Integer | Enum):
        if isinstance(kind, Integer) and kind.boolean:
            code = "?"
        elif kind.name in ("float", "double") and isinstance(kind, Integer):
            code = "f" if kind.size == 4 else "d"
        else:
            pair = _CODES.get(kind.size)
            if pair is None:
                raise BtfError(f"the member {name} has {kind.size} bytes, which no format has")
            code = pair[0 if kind.signed else 1]
        yield Field(name, offset, kind.size, code, kind.signed, tags)
