"""The geometry of Swiss maps (Go >= 1.24), read from the map type's own group type (internal/runtime/maps: group.go).

A group is a control word and eight slots, either {key, elem} eight times or, with GOEXPERIMENT=mapsplitgroup, eight
keys and then eight elems. The compiler describes the group as a struct, so both are read, not assumed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.executable import rtti
from agent.executable.elf import Image
from agent.executable.errors import CorruptError, LimitError
from agent.executable.moduledata import Moduledata
from agent.executable.scan import TypeScan
from agent.executable.structs import same_package, split_type

_GROUP_AT = 64
_MAX_MAPS = 1 << 12


@dataclass(frozen=True, slots=True)
class MapGeometry:
    """Where keys and elems stand in a group, all in bytes but `slots`: key i is at key_offset + i * key_stride."""

    group_size: int
    slots: int
    key_offset: int
    key_stride: int
    elem_offset: int
    elem_stride: int


def find_map_geometry(image: Image, module: Moduledata, scan: TypeScan, name: str) -> MapGeometry | None:
    """Return the geometry of a defined map type such as `net/http.Header`; None without such a type or with older maps.

    Raises CorruptError.
    """
    best: tuple[bool, MapGeometry] | None = None
    for address, is_own in _descriptors(image, module, scan, name):
        geometry = _geometry(image, address)
        if geometry is not None and (best is None or (is_own and not best[0])):
            best = (is_own, geometry)
    return best[1] if best else None


def find_map(image: Image, module: Moduledata, scan: TypeScan, name: str) -> int | None:
    """Return where the descriptor of a defined map type stands; None where that isn't one. Raises CorruptError."""
    found = [address for address, _ in _descriptors(image, module, scan, name)]
    return found[0] if len(found) == 1 else None


def _descriptors(image: Image, module: Moduledata, scan: TypeScan, name: str) -> Iterator[tuple[int, bool]]:
    """Yield the descriptors of map types of this name, and whether each is the package's own, not a vendored one."""
    package, own = split_type(name)
    if not package:
        return
    for tried, (address, _) in enumerate(scan.named(rtti.MAP, {own})):
        if tried > _MAX_MAPS:
            raise LimitError(f"has too many maps called {own}")
        paths = [
            path
            for _, path in rtti.map_package_paths(image, module.types, address)
            if same_package(path, package)
        ]
        if paths:
            yield address, package in paths


def _geometry(image: Image, address: int) -> MapGeometry | None:
    """None if the map at `address` isn't a Swiss map."""
    try:
        group = image.word(address + _GROUP_AT)
        head = rtti.parse_type(image.read(group, rtti.TYPE_SIZE))
        if head.kind != rtti.STRUCT:
            return None
        fields = {field.name: field for field in rtti.read_fields(image, group)}
        if "ctrl" not in fields:  # the bucket of an older map stands at the same place
            return None
        if "slots" in fields:
            slots = fields["slots"]
            slot, stride, count = _array(image, slots.type)
            inner = {field.name: field.offset for field in rtti.read_fields(image, slot)}
            return MapGeometry(
                head.size, count, slots.offset + inner["key"], stride, slots.offset + inner["elem"], stride
            )
        if "keys" in fields and "elems" in fields:
            _, key_stride, count = _array(image, fields["keys"].type)
            _, elem_stride, _ = _array(image, fields["elems"].type)
            return MapGeometry(
                head.size, count, fields["keys"].offset, key_stride, fields["elems"].offset, elem_stride
            )
    except (CorruptError, KeyError):
        pass
    return None


def _array(image: Image, address: int) -> tuple[int, int, int]:
    """Element type, element size in bytes and length of the array type at `address`. Raises CorruptError."""
    if rtti.parse_type(image.read(address, rtti.TYPE_SIZE)).kind != rtti.ARRAY:
        raise CorruptError(f"has no array at {address:#x}, where a map's slots should be")
    element, _, length = struct.unpack("<QQQ", image.read(address + rtti.TYPE_SIZE, 24))
    return element, rtti.parse_type(image.read(element, rtti.TYPE_SIZE)).size, length
