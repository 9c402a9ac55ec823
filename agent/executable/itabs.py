"""Itabs: the words that tell a value's type in an interface (internal/abi/iface.go; runtime/iface.go: itabsinit)."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.executable.elf import Image
from agent.executable.errors import LimitError
from agent.executable.moduledata import Moduledata
from agent.executable.names import TypeNames

_SIZE = 32
"""Bytes of an itab with one method: interface, type, hash and padding, first method."""

_METHODS_AT = 64
_MAX_ITABS = 1 << 16


@dataclass(frozen=True, slots=True)
class Itab:
    """Full names of the concrete type and of the interface it is wrapped in."""

    type: str
    interface: str


def read_itabs(image: Image, module: Moduledata, names: TypeNames) -> Mapping[int, Itab]:
    """Address to meaning of each itab the linker made; those the program makes at run time are not in the file.

    Raises CorruptError.
    """
    found: dict[int, Itab] = {}
    for address in (
        _in_range(image, *module.itabs) if module.itabs_are_range else _linked(image, *module.itabs)
    ):
        interface, kind = struct.unpack("<QQ", image.read(address, 16))
        type_name, interface_name = names.at(kind), names.at(interface)
        if type_name is not None and interface_name is not None:
            found[address] = Itab(type_name, interface_name)
    return found


def _linked(image: Image, address: int, count: int) -> Iterator[int]:
    if count > _MAX_ITABS:
        raise LimitError(f"has {count} itabs")
    if count:
        yield from struct.unpack(f"<{count}Q", image.read(address, 8 * count))


def _in_range(image: Image, address: int, size: int) -> Iterator[int]:
    end = address + size
    for _ in range(_MAX_ITABS):
        if address + _SIZE > end:
            return
        yield address
        interface, _, _, method = struct.unpack("<QQQQ", image.read(address, _SIZE))
        methods = image.word(interface + _METHODS_AT) if method else 1
        address += _SIZE + 8 * (min(methods, 1 << 16) - 1)
