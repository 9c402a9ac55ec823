"""Types of a compiled BPF object, from its .BTF section: what C declares, Python reads here.

Format: Documentation/bpf/btf.rst of the kernel. All little-endian, as both architectures of gospan are.
Qualifiers and typedefs are looked through; what a Go offset stands for is a declaration tag on a member,
`__attribute__((btf_decl_tag("go:net/http.Request.Method")))`.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from agent.kernel import libbpf
from agent.kernel.errors import KernelError
from agent.paths import how_to_have


class BtfError(ValueError):
    """The types can't be read, or one of them isn't there or isn't of the expected form."""


@dataclasses.dataclass(frozen=True, slots=True)
class Integer:
    """An integer, a bool, a float or a pointer (its type is "pointer"); `size` in bytes."""

    name: str
    size: int
    signed: bool = False
    boolean: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Enum:
    """An enumeration; `size` in bytes, `constants` by name."""

    name: str
    size: int
    signed: bool
    constants: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """`count` elements of one type; 0 for a flexible array member."""

    element: Type
    count: int

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.element.size * self.count


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct: its name (empty if it has none), offset in bytes, type and declaration tags."""

    name: str
    offset: int
    type: Type
    tags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Struct:
    """A struct or union with its members in order; `size` in bytes."""

    name: str
    size: int
    members: tuple[Member, ...]
    union: bool = False


Type: TypeAlias = "Integer | Enum | Array | Struct"


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """A global variable: its section (such as ".rodata"), offset in it in bytes, and type."""

    name: str
    section: str
    offset: int
    type: Type


# enum of kinds (include/uapi/linux/btf.h)
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = range(1, 12)
_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(12, 20)

_LOOK_THROUGH = frozenset((_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG))
_FIXED_TAIL = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_TAIL_PER_ENTRY = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MAGIC = 0xEB9F
_MAX_SIZE = 16 << 20
"""More .BTF than this is not read; an object of gospan has some ten kilobytes."""
_MAX_DEPTH = 64
"""Types nested deeper than this are an error: a cycle of typedefs, or of structs that contain themselves."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Raw:
    """One entry of the type section as it stands there."""

    name: str
    kind: int
    flag: bool
    entries: int
    word: int  # a size or the number of another type
    tail: bytes


class Btf:
    """The types of one object; built by `parse` and `read`."""

    def __init__(self, raw: list[_Raw], strings: bytes) -> None:
        self._raw = raw
        self._strings = strings
        self._tags: dict[tuple[int, int], list[str]] = {}
        self._structs: dict[str, int] = {}
        self._enums: list[int] = []
        self._cache: dict[int, Type] = {}
        for number, entry in enumerate(raw):
            if entry.kind == _DECL_TAG:
                (component,) = struct.unpack("<i", entry.tail)
                self._tags.setdefault((entry.word, component), []).append(entry.name)
            elif entry.kind in (_STRUCT, _UNION) and entry.name:
                self._structs.setdefault(entry.name, number)
            elif entry.kind in (_ENUM, _ENUM64):
                self._enums.append(number)

    @property
    def structs(self) -> tuple[str, ...]:
        """The names of all structs and unions."""
        return tuple(self._structs)

    def struct(self, name: str) -> Struct:
        """Give the struct or union of that name; raise BtfError if there is none."""
        found = self._resolve(self._structs[name]) if name in self._structs else None
        if not isinstance(found, Struct):
            raise BtfError(f"the object has no struct {name}")
        return found

    @functools.cached_property
    def enums(self) -> dict[str, Enum]:
        """The enumerations that have a name, by it."""
        return {found.name: found for found in self._all_enums() if found.name}

    @functools.cached_property
    def constants(self) -> dict[str, int]:
        """All constants of all enumerations, by name."""
        return {name: value for found in self._all_enums() for name, value in found.constants.items()}

    @functools.cached_property
    def variables(self) -> dict[str, Variable]:
        """The global variables, by name. Those of libbpf's own sections (.maps, license) are among them.

        Offsets in the section are as libbpf sets them, since clang leaves them to the linker.
        """
        found = {}
        for section in self._raw:
            if section.kind != _DATASEC:
                continue
            for number, offset, _size in struct.iter_unpack("<III", section.tail):
                entry = self._entry(number)
                if entry.kind == _VAR:
                    try:
                        kind = self._resolve(entry.word)
                    except BtfError:
                        continue  # of no form that is of use here, such as a function's address
                    found[entry.name] = Variable(entry.name, section.name, offset, kind)
        return found

    def _all_enums(self) -> Iterator[Enum]:
        for number in self._enums:
            found = self._resolve(number)
            if isinstance(found, Enum):
                yield found

    def _entry(self, number: int) -> _Raw:
        if not 0 < number < len(self._raw):
            raise BtfError(f"a type refers to type {number} of {len(self._raw) - 1}")
        return self._raw[number]

    def _resolve(self, number: int, depth: int = 0) -> Type:
        known = self._cache.get(number)
        if known is None:
            if depth > _MAX_DEPTH:
                raise BtfError(f"type {number} is nested too deep, or contains itself")
            known = self._cache[number] = self._build(number, depth + 1)
        return known

    def _build(self, number: int, depth: int) -> Type:
        entry = self._entry(number)
        if entry.kind in _LOOK_THROUGH:
            return self._resolve(entry.word, depth)
        if entry.kind == _INT:
            (details,) = struct.unpack("<I", entry.tail)
            encoding, bit_offset, bits = details >> 24 & 0xF, details >> 16 & 0xFF, details & 0xFF
            if bits != 8 * entry.word or bit_offset or entry.word not in (1, 2, 4, 8, 16):
                raise BtfError(f"the integer {entry.name} is not made of whole bytes")
            return Integer(entry.name, entry.word, signed=bool(encoding & 1), boolean=bool(encoding & 4))
        if entry.kind == _PTR:
            return Integer("pointer", 8)
        if entry.kind == _FLOAT:
            return Integer(entry.name, entry.word)
        if entry.kind == _ARRAY:
            element, _index, count = struct.unpack("<III", entry.tail)
            return Array(self._resolve(element, depth), count)
        if entry.kind in (_STRUCT, _UNION):
            return Struct(
                entry.name, entry.word, tuple(self._members(number, entry, depth)), entry.kind == _UNION
            )
        if entry.kind == _ENUM:
            # The flag says "signed", but clang before 15 never sets it; so all 32-bit constants are read as
            # signed, and one above 2^31 comes out negative with every compiler.
            pairs = struct.iter_unpack("<Ii", entry.tail)
            return self._enum(entry, pairs, signed=entry.flag)
        if entry.kind == _ENUM64:
            triples = struct.iter_unpack("<III", entry.tail)
            wide = ((name, low | high << 32) for name, low, high in triples)
            if entry.flag:
                wide = ((name, value - (value >> 63 << 64)) for name, value in wide)
            return self._enum(entry, wide, signed=entry.flag)
        raise BtfError(f"type {number} ({entry.name or 'without a name'}) has no size: kind {entry.kind}")

    def _members(self, number: int, entry: _Raw, depth: int) -> Iterator[Member]:
        for index, (name, kind, bits) in enumerate(struct.iter_unpack("<III", entry.tail)):
            text = _string(self._strings, name)
            if entry.flag:  # the upper byte is the width of a bit field
                width, bits = bits >> 24, bits & 0xFFFFFF
                if width:
                    raise BtfError(f"the member {entry.name}.{text} is a bit field, which is not supported")
            if bits % 8:
                raise BtfError(f"the member {entry.name}.{text} is a bit field, which is not supported")
            found = self._resolve(kind, depth)
            if bits // 8 + found.size > entry.word:
                raise BtfError(
                    f"the member {entry.name}.{text} reaches beyond the struct's {entry.word} bytes"
                )
            yield Member(text, bits // 8, found, tuple(self._tags.get((number, index), ())))

    def _enum(self, entry: _Raw, pairs: Iterable[tuple[int, int]], *, signed: bool) -> Enum:
        constants = {_string(self._strings, name): value for name, value in pairs}
        return Enum(entry.name, entry.word, signed, constants)


def _string(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset) if offset < len(strings) else -1
    if end < 0:
        raise BtfError(f"a name lies at {offset} of a string section of {len(strings)} bytes")
    return strings[offset:end].decode(errors="replace")


def parse(data: bytes) -> Btf:
    """Read the bytes of a .BTF section.

    Raise BtfError if the data is cut short, of another byte order or otherwise not what btf.rst describes.
    """
    if len(data) > _MAX_SIZE:
        raise BtfError(f"the BTF has {len(data)} bytes; more than {_MAX_SIZE} are not read")
    if len(data) < _HEADER.size:
        raise BtfError(f"the BTF has only {len(data)} bytes, too short for its header")
    magic, version, _flags, header, type_start, type_size, string_start, string_size = _HEADER.unpack_from(
        data
    )
    if magic != _MAGIC or version != 1:
        raise BtfError(f"no little-endian BTF of version 1: it starts with {data[:4].hex()}")
    types = data[header + type_start :][:type_size]
    strings = data[header + string_start :][:string_size]
    if len(types) != type_size or len(strings) != string_size:
        raise BtfError(
            f"the BTF is cut short: {len(data)} bytes for {type_size} of types, {string_size} of names"
        )
    return Btf(list(_entries(types, strings)), strings)


def _entries(types: bytes, strings: bytes) -> Iterator[_Raw]:
    yield _Raw("void", 0, False, 0, 0, b"")
    position = 0
    while position < len(types):
        if position + _TYPE.size > len(types):
            raise BtfError(f"the types are cut short at byte {position}")
        name, info, word = _TYPE.unpack_from(types, position)
        entries, kind, flag = info & 0xFFFF, info >> 24 & 0x1F, bool(info >> 31)
        if not _INT <= kind <= _ENUM64:
            raise BtfError(f"kind {kind} at byte {position} of the types is not known")
        position += _TYPE.size
        size = _FIXED_TAIL.get(kind, _TAIL_PER_ENTRY.get(kind, 0) * entries)
        tail = types[position : position + size]
        if len(tail) != size:
            raise BtfError(f"the types are cut short at byte {position}")
        position += size
        yield _Raw(_string(strings, name), kind, flag, entries, word, tail)


def read(path: str) -> Btf:
    """Read the types of an object file, as libbpf completes them; raise BtfError, which names the file."""
    with libbpf.captured_warnings() as messages:
        try:
            handle = libbpf.object_open(path)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                raise BtfError(how_to_have(path)) from None
            why = messages[-1].removeprefix("libbpf: ") if messages else str(error)
            raise BtfError(f"{path} is no BPF object that can be read: {why}") from None
        data = libbpf.object_types(handle)
        libbpf.object_close(handle)
    if data is None:
        raise BtfError(f"{path} has no .BTF section; compile it with clang -g -target bpf")
    try:
        return parse(data)
    except BtfError as error:
        raise BtfError(f"{path}: {error}") from None
