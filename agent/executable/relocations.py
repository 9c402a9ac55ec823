"""RELATIVE relocations of a position-independent program, for linkers that leave the targets empty.

Go's own linker, bfd and gold store each addend in place too, so that the file's bytes can be read as they are; and
packed relocations (DT_RELR) have no other place for it. lld leaves zeros unless told --apply-dynamic-relocs.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

from agent.executable.errors import LimitError

if TYPE_CHECKING:
    from agent.executable.elf import Image

_RELATIVE = {"amd64": 8, "arm64": 1027}
"""R_X86_64_RELATIVE and R_AARCH64_RELATIVE."""

_DT_RELA, _DT_RELASZ, _DT_RELAENT = 7, 8, 9
_ENTRY = 24
_MAX_ENTRIES = 1 << 20
_SAMPLES = 64


class Relocations:
    """Words to be written over the file's bytes: sorted addresses and the value of each."""

    def __init__(self, targets: array[int], values: array[int]) -> None:
        self._targets = targets
        self._values = values

    def apply(self, data: bytes, address: int) -> bytes:
        """Return `data`, which stands at `address`, with every word that lies completely inside it filled in."""
        first = bisect_left(self._targets, address)
        last = bisect_left(self._targets, address + len(data) - 7)
        if first >= last:
            return data
        patched = bytearray(data)
        for target, value in zip(self._targets[first:last], self._values[first:last], strict=True):
            struct.pack_into("<Q", patched, target - address, value)
        return bytes(patched)


def find_relocations(image: Image, dynamic: tuple[int, int]) -> Relocations | None:
    """Return the relocations of `image`, or None if it has none or they are all in place already.

    `dynamic` is offset and size of PT_DYNAMIC. Whether they are in place is seen from a sample over the whole table.
    Raises LimitError if there are more of them than any linker makes.
    """
    offset, size = dynamic
    if not size or offset + size > image.source.size:
        return None
    entries = dict(struct.iter_unpack("<QQ", image.source.read(offset, min(size, 1 << 14) & ~15)))
    address, size = entries.get(_DT_RELA, 0), entries.get(_DT_RELASZ, 0)
    count = size // _ENTRY
    if not count or entries.get(_DT_RELAENT) != _ENTRY or not image.segment(address, size):
        return None
    if count > _MAX_ENTRIES:
        raise LimitError(f"has {count} relocations, more than any Go linker makes")
    relative = _RELATIVE[image.arch]
    table = image.file_offset(address, size)
    for index in range(0, count, max(1, count // _SAMPLES)):
        target, kind, addend = struct.unpack("<QQQ", image.source.read(table + index * _ENTRY, _ENTRY))
        if kind == relative and addend and image.segment(target, 8):
            here = image.source.read(image.file_offset(target, 8), 8)
            if int.from_bytes(here, "little") != addend:
                break
    else:
        return None
    words = array("Q", image.source.read(table, count * _ENTRY))
    kinds = words[1::3]
    order = [index for index in range(count) if kinds[index] == relative]
    targets, values = words[0::3], words[2::3]
    order.sort(key=targets.__getitem__)
    return Relocations(
        array("Q", map(targets.__getitem__, order)),
        array("Q", map(values.__getitem__, order)),
    )
