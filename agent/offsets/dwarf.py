"""Struct types and map geometries as DWARF describes them: the second opinion on what type information says.

Reading DWARF is for the making of the table and for tests; at start-up it would cost a second a megabyte, and stripped
programs have none. Attributes of Go's own: cmd/internal/dwarf/dwarf.go.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, BinaryIO

from elftools.elf.elffile import ELFFile

from agent.executable import Field, MapGeometry, Struct

_GO_KIND, _GO_KEY, _GO_ELEM, _GO_EMBEDDED = 0x2900, 0x2901, 0x2902, 0x2903
_KIND_MAP, _KIND_STRUCT = 21, 25

_POINTER_SIZE = 8
_MAX_DEPTH = 32

_DECLARED_IN_FUNCTION = re.compile(r"·\d+")
"""The compiler numbers types that functions declare (cmd/compile/internal/types: Sym.Name and Vargen)."""


class Dwarf:
    """The types in a program's DWARF."""

    def __init__(self, file: BinaryIO) -> None:
        elf = ELFFile(file)
        if not elf.has_dwarf_info():
            raise ValueError("has no DWARF: it was linked with -w, or stripped")
        self._structs: dict[int, Struct] = {}
        self._by_name: defaultdict[str, list[Any]] = defaultdict(list)
        self._maps: dict[str, Any] = {}
        for unit in elf.get_dwarf_info().iter_CUs():
            # The linker puts all types into units that it calls runtime (cmd/link/internal/ld/dwarf.go:
            # dwarfGenerateDebugInfo).
            if _name(unit.get_top_DIE()) != "runtime":
                continue
            for die in unit.iter_DIEs():
                if die.tag == "DW_TAG_structure_type" and _kind(die) == _KIND_STRUCT:
                    self._by_name[_name(die)].append(die)
                elif die.tag == "DW_TAG_typedef" and _kind(die) == _KIND_MAP and "." in _name(die):
                    self._maps[_name(die)] = die

    @property
    def names(self) -> set[str]:
        """The names of all struct types, those of types without a name as Go prints them."""
        return set(self._by_name)

    def is_empty(self, name: str) -> bool:
        """Whether all struct types of that name have no field at all."""
        return not any(
            child.tag == "DW_TAG_member"
            for die in self._by_name.get(name, ())
            for child in die.iter_children()
        )

    @property
    def maps(self) -> set[str]:
        """The names of all defined map types, and of some of the others."""
        return set(self._maps)

    def structs(self, name: str) -> list[Struct]:
        """The struct types of that name: several where functions declare one of the same name."""
        return [self._struct(die, 0) for die in self._by_name.get(name, ())]

    def map_geometry(self, name: str) -> MapGeometry | None:
        """The geometry of a Swiss map type; None where there is none of it, as before Go 1.24.

        The compiler calls the type of its groups `map.group[K]V` (cmd/compile/internal/reflectdata: map_swiss.go).
        """
        die = self._maps.get(name)
        if die is None:
            return None
        key, elem = (_target(die, attribute) for attribute in (_GO_KEY, _GO_ELEM))
        groups = self._by_name.get(f"noalg.map.group[{_name(key)}]{_name(elem)}")
        if not groups:
            return None
        group = groups[0]
        members = {_name(one): one for one in group.iter_children() if one.tag == "DW_TAG_member"}
        size = group.attributes["DW_AT_byte_size"].value
        if "slots" in members:
            start = _location(members["slots"])
            slot, stride, count = _array(_type(members["slots"]))
            inner = {_name(one): _location(one) for one in slot.iter_children() if one.tag == "DW_TAG_member"}
            return MapGeometry(size, count, start + inner["key"], stride, start + inner["elem"], stride)
        _, key_stride, count = _array(_type(members["keys"]))
        _, elem_stride, _ = _array(_type(members["elems"]))
        return MapGeometry(
            size, count, _location(members["keys"]), key_stride, _location(members["elems"]), elem_stride
        )

    def _struct(self, die: Any, depth: int) -> Struct:
        known = self._structs.get(die.offset)
        if known is None:
            if depth > _MAX_DEPTH:
                raise ValueError(f"has a struct in its DWARF that contains itself: {_name(die)}")
            fields = {}
            for member in die.iter_children():
                if member.tag != "DW_TAG_member" or _name(member) == "_":
                    continue
                kind = _type(member)
                # An interface is described as the struct runtime.iface under a name of its own kind.
                is_struct = _kind(kind) == _KIND_STRUCT == _first_kind(member)
                inner = self._struct(kind, depth + 1) if is_struct else None
                embedded = _GO_EMBEDDED in member.attributes and bool(member.attributes[_GO_EMBEDDED].value)
                fields[_name(member)] = Field(
                    _name(member), _location(member), _size(kind), "", embedded, inner
                )
            known = Struct(_name(die), "", die.attributes["DW_AT_byte_size"].value, fields)
            self._structs[die.offset] = known
        return known


def _name(die: Any) -> str:
    attribute = die.attributes.get("DW_AT_name")
    if attribute is None:
        return ""
    return _DECLARED_IN_FUNCTION.sub("", attribute.value.decode("utf-8", "replace").replace("%2e", "."))


def _kind(die: Any) -> int:
    attribute = die.attributes.get(_GO_KIND)
    return int(attribute.value) if attribute is not None else 0


def _location(member: Any) -> int:
    return int(member.attributes["DW_AT_data_member_location"].value)


def _target(die: Any, attribute: int) -> Any:
    return (
        die.cu.get_DIE_from_refaddr(die.attributes[attribute].value) if attribute in die.attributes else die
    )


def _type(die: Any) -> Any:
    """The type of a member, behind the names that were given to it."""
    found = die.get_DIE_from_attribute("DW_AT_type")
    for _ in range(_MAX_DEPTH):
        if found.tag != "DW_TAG_typedef" or "DW_AT_type" not in found.attributes:
            break
        found = found.get_DIE_from_attribute("DW_AT_type")
    return found


def _first_kind(member: Any) -> int:
    """The kind of a member's type, as the outermost of its names that says so has it."""
    die = member.get_DIE_from_attribute("DW_AT_type")
    for _ in range(_MAX_DEPTH):
        if _kind(die) or die.tag != "DW_TAG_typedef" or "DW_AT_type" not in die.attributes:
            break
        die = die.get_DIE_from_attribute("DW_AT_type")
    return _kind(die)


def _size(die: Any) -> int:
    """The size of a type in bytes. Pointers, functions, maps and channels have none in DWARF: they are words."""
    attribute = die.attributes.get("DW_AT_byte_size")
    return int(attribute.value) if attribute is not None else _POINTER_SIZE


def _array(die: Any) -> tuple[Any, int, int]:
    """The element type, its size in bytes and the length of an array type."""
    element = _type(die)
    bounds = next(one for one in die.iter_children() if one.tag == "DW_TAG_subrange_type")
    count = bounds.attributes.get("DW_AT_count")
    length = count.value if count is not None else bounds.attributes["DW_AT_upper_bound"].value + 1
    return element, _size(element), length
