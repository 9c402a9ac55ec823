"""Itabs: the words that tell a value's type in an interface (internal/abi/iface.go; runtime/iface.go: itabsinit)."""

import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from agent.executable.elf import Image
from agent.executable.errors import LimitError
from agent.executable.moduledata import Moduledata
from agent.executable.names import TypeNames

_SIZE = 32
"""Bytes of an itab with one method: interface, type, hash and padding, first method."""

_HEAD = 16
_PAIR = struct.Struct("<QQ")
"""The first two words: interface and type."""

_METHODS_AT = 64
_MAX_ITABS = 1 << 16
_MAX_SPAN = 8 << 20
"""Itabs further apart than this are read one by one; in the largest program seen they take 1 MB."""


@dataclass(frozen=True, slots=True)
class Itab:
    """Full names of the concrete type and of the interface it is wrapped in."""

    type: str
    interface: str


def read_itabs(
    image: Image, module: Moduledata, names: TypeNames, interfaces: Collection[str] | None = None
) -> Mapping[int, Itab]:
    """Address to meaning of each itab the linker made, of these interfaces only if any are given.

    Itabs that the program makes at run time are not in the file. Raises CorruptError, LimitError.
    """
    found: dict[int, Itab] = {}
    for address, interface, kind in (
        _in_range(image, *module.itabs) if module.itabs_are_range else _linked(image, *module.itabs)
    ):
        interface_name = names.at(interface)
        if interface_name is None or (interfaces is not None and interface_name not in interfaces):
            continue
        type_name = names.at(kind)
        if type_name is not None:
            found[address] = Itab(type_name, interface_name)
    return found


def _linked(image: Image, address: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield address, interface and type of each itab of a list of pointers to them."""
    if count > _MAX_ITABS:
        raise LimitError(f"has {count} itabs")
    if not count:
        return
    addresses = struct.unpack(f"<{count}Q", image.read(address, 8 * count))
    # The linker puts them side by side: one read is enough.
    low, high = min(addresses), max(addresses) + _HEAD
    data = image.read(low, high - low) if high - low <= _MAX_SPAN else None
    for at in addresses:
        pair = _PAIR.unpack_from(data, at - low) if data is not None else _PAIR.unpack(image.read(at, _HEAD))
        yield at, *pair


def _in_range(image: Image, address: int, size: int) -> Iterator[tuple[int, int, int]]:
    """The same of itabs that stand in a row."""
    end = address + size
    for _ in range(_MAX_ITABS):
        if address + _SIZE > end:
            return
        interface, kind, _, method = struct.unpack("<QQQQ", image.read(address, _SIZE))
        yield address, interface, kind
        methods = image.word(interface + _METHODS_AT) if method else 1
        address += _SIZE + 8 * (min(methods, 1 << 16) - 1)
