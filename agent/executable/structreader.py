"""Reads struct types out of a program (internal/abi/type.go: StructType, StructField)."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from agent.executable import rtti
from agent.executable.elf import Image
from agent.executable.errors import CorruptError, LimitError
from agent.executable.moduledata import Moduledata
from agent.executable.scan import TypeScan
from agent.executable.structs import Field, Struct, same_package, split_type

_MAX_DEPTH = 32
_MAX_FIELDS = 1 << 17
"""Read for one question. The largest program seen, of 127 MB, has 103,000 in its 20,000 structs."""

_MAX_NAMESAKES = 1 << 14
_MAX_COPIES = 64

_SHAPES = "go.shape"
"""The package of the stand-ins for type arguments while generic code is compiled; no value has one as its type."""


class StructReader:
    """Reads each descriptor once. Its methods raise CorruptError and LimitError."""

    def __init__(self, image: Image, module: Moduledata, scan: TypeScan) -> None:
        self._image = image
        self._module = module
        self._scan = scan
        self._structs: dict[int, Struct] = {}
        self._types: dict[int, tuple[rtti.Type, str]] = {}
        self._names: dict[int, tuple[str, bool]] = {}
        self._layouts: dict[int, int] = {}
        self._layout_numbers: dict[object, int] = {}
        self._fields_left = 0

    def find(self, names: Collection[str]) -> Mapping[str, Struct]:
        """Return the structs called by one of `names`; missing where there is none.

        A package's own type goes before vendored copies, the standard library's vendored copy before others. Where
        types of one package share a name, as those that functions declare can, and their fields would have different
        offsets, none is returned.
        """
        self._fields_left = _MAX_FIELDS
        chosen: dict[str, Struct] = {}
        for name, by_path in self._addresses(names).items():
            exact = split_type(name)[0]
            best = min(by_path, key=lambda path: (path != exact, path != f"vendor/{exact}", path))
            found = [at for at in by_path[best] if self._try_read(at) is not None]
            if found and len({self._layouts[at] for at in found}) == 1:
                chosen[name] = self._structs[found[0]]
        return chosen

    def addresses(self, names: Collection[str]) -> Mapping[str, int]:
        """Return where the descriptors of the structs called by one of `names` stand; missing where that isn't one."""
        return {
            name: addresses[0]
            for name, by_path in self._addresses(names).items()
            if len(by_path) == 1 and len(addresses := next(iter(by_path.values()))) == 1
        }

    def _addresses(self, names: Collection[str]) -> dict[str, dict[str, list[int]]]:
        """Wanted name to package path to descriptors."""
        wanted: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            package, own = split_type(name)
            if package:
                wanted.setdefault(own, []).append((package, name))
        found: dict[str, dict[str, list[int]]] = {}
        copies: Counter[str] = Counter()
        for namesakes, (address, own) in enumerate(self._descriptors(wanted.keys())):
            if namesakes > _MAX_NAMESAKES:
                raise LimitError(f"has more than {_MAX_NAMESAKES} types that share a few names")
            path = self._package(address)
            for package, name in wanted[own] if path is not None else ():
                if path is not None and same_package(path, package):
                    copies[name] += 1
                    if copies[name] > _MAX_COPIES:
                        raise LimitError(f"has more than {_MAX_COPIES} types called {name}")
                    found.setdefault(name, {}).setdefault(path, []).append(address)
        return found

    def all(self) -> Iterator[Struct]:
        """Yield every defined struct type."""
        self._fields_left = _MAX_FIELDS
        for address, _ in self._descriptors(None):
            struct = self._try_read(address) if self._package(address) is not None else None
            if struct is not None:
                yield struct

    def _descriptors(self, names: Collection[str] | None) -> Iterator[tuple[int, str]]:
        return self._scan.named(rtti.STRUCT, names)

    def _try_read(self, address: int) -> Struct | None:
        """Return the struct at `address`, or None if what is there only looked like a descriptor."""
        try:
            return self._read(address, 0)
        except CorruptError:
            return None

    def _read(self, address: int, depth: int) -> Struct:
        struct = self._structs.get(address)
        if struct is not None:
            return struct
        if depth > _MAX_DEPTH:
            raise CorruptError(f"has a struct at {address:#x} that contains itself")
        head, text = self._type(address)
        if head.kind != rtti.STRUCT:
            raise CorruptError(f"has no struct at {address:#x}, where one should be")
        package = (self._package(address) or "") if head.flags & rtti.NAMED else ""
        name = f"{package}.{rtti.type_part(text)}" if package else ""
        fields: dict[str, Field] = {}
        layout: list[object] = [head.size]
        for raw in rtti.read_fields(self._image, address, self._names):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise LimitError("has more struct fields than any real program")
            field_type, field_text = self._type(raw.type)
            inner = self._read(raw.type, depth + 1) if field_type.kind == rtti.STRUCT else None
            if raw.name != "_":
                fields[raw.name] = Field(
                    raw.name, raw.offset, field_type.size, field_text, raw.embedded, inner
                )
                layout.append((raw.name, raw.offset, field_type.size, self._layouts.get(raw.type)))
        struct = self._structs[address] = Struct(name, package, head.size, fields)
        # Equal numbers mean equal offsets, however deep; so structs need not be compared field by field again.
        self._layouts[address] = self._layout_numbers.setdefault(tuple(layout), len(self._layout_numbers))
        return struct

    def _package(self, address: int) -> str | None:
        """Return the package of the type described at `address`; None if it has none, as then it is no struct's."""
        try:
            path = rtti.package_path(self._image, self._module.types, address, rtti.STRUCT)
        except CorruptError:
            return None
        return path if path not in ("", _SHAPES) else None

    def _type(self, address: int) -> tuple[rtti.Type, str]:
        known = self._types.get(address)
        if known is None:
            head = rtti.parse_type(self._image.read(address, rtti.TYPE_SIZE))
            text, _ = rtti.read_name(self._image, self._module.types + head.name)
            known = self._types[address] = (head, text[1:] if head.flags & rtti.EXTRA_STAR else text)
        return known
