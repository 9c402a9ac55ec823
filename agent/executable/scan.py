"""Finding descriptors among all types, without walking them.

Descriptors are 8-aligned, so their kind bytes are among every eighth byte from the 23rd on. Those are sliced out with a
stride and translated to ones and zeros, which runs at C speed and whose cost hardly depends on how many types there
are; only where a one is left does Python look closer.
"""

from array import array
from collections.abc import Collection, Iterator

from agent.executable import rtti
from agent.executable.elf import Image
from agent.executable.errors import LimitError

_FLAGS_AT, _ALIGN_AT, _FIELD_ALIGN_AT, _KIND_AT = 20, 21, 22, 23
_MAX_FLAGS = 64
_ALIGNMENTS = frozenset({1, 2, 4, 8})
_KINDS = (rtti.STRUCT, rtti.MAP)
_TABLE = bytes(value & 31 in _KINDS for value in range(256))

_MAX_CANDIDATES = 3 << 16
_MAX_NAME = 1 << 10


class TypeScan:
    """What looks like the descriptor of a defined struct or map type in [types, etypes). Found once, when first needed.

    Raises CorruptError if the range isn't in the file, LimitError if there are too many.
    """

    def __init__(self, image: Image, types: int, etypes: int) -> None:
        self._image = image
        self._types = types
        self._size = etypes - types
        self._data: bytes | None = None
        self._found: dict[int, array[int]] = {}

    def named(self, kind: int, wanted: Collection[str] | None) -> Iterator[tuple[int, str]]:
        """Yield address and name without package of each descriptor of `kind` whose name is wanted; None wants all.

        The caller still has to check what it reads there. Raises as the class says.
        """
        if not self._found:
            self._scan()
        names = None if wanted is None else frozenset(name.encode() for name in wanted)
        data, types, size = self._data, self._types, self._size
        for at in self._found[kind]:
            start = at + rtti.NAME_OFFSET
            head = data[start : start + 4] if data is not None else self._image.read(types + start, 4)
            name_at = int.from_bytes(head, "little")
            if not 0 < name_at < size - 3:
                continue
            if data is not None:
                text = _name(data, name_at)
            else:
                text = _name(self._image.read(types + name_at, min(_MAX_NAME, size - name_at)), 0)
            # The string is `*http.Request`, with the package's name, not its path; a package's name has no dot.
            own = text[text.find(b".") + 1 :]
            if own and (names is None or own in names):
                yield types + at, own.decode("utf-8", "replace")

    def _scan(self) -> None:
        """Find the candidates, as offsets from `types`."""
        found = {kind: array("Q") for kind in _KINDS}
        end = self._types + self._size
        # Of more than is kept, names are read one by one.
        self._data = self._image.keep(self._types, end)
        for address, chunk in self._image.chunks(self._types, end, rtti.TYPE_SIZE - 8):
            hits = chunk[_KIND_AT::8].translate(_TABLE)
            at = 8 * hits.find(1)
            while at >= 0:
                if (
                    at + rtti.TYPE_SIZE <= len(chunk)
                    and chunk[at + _ALIGN_AT] == chunk[at + _FIELD_ALIGN_AT] in _ALIGNMENTS
                    and chunk[at + _FLAGS_AT] & rtti.NAMED
                    and chunk[at + _FLAGS_AT] < _MAX_FLAGS
                ):
                    found[chunk[at + _KIND_AT] & 31].append(address - self._types + at)
                at = 8 * hits.find(1, at // 8 + 1)
            if sum(map(len, found.values())) > _MAX_CANDIDATES:
                raise LimitError("has more types than any real program")
        self._found = found


def _name(data: bytes, at: int) -> bytes:
    """Return the bytes of the abi.Name at `at`, cut where `data` ends."""
    length, start = data[at + 1], at + 2
    if length & 0x80:
        length, start = length & 0x7F | data[at + 2] << 7, at + 3
    return data[start : start + length]
