"""Struct types of a program: where each field is (internal/abi/type.go: StructType, StructField)."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from agent.executable import rtti
from agent.executable.elf import Image
from agent.executable.errors import CorruptError
from agent.executable.moduledata import Moduledata
from agent.executable.scan import named_descriptors

_MAX_DEPTH = 32
_MAX_FIELDS = 4 << 20
_MAX_COPIES = 64


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct: offset from the struct's start and size of its type, in bytes; `type` is as Go
    prints it.

    `struct` describes the field's type where that is a struct by value.
    """

    name: str
    offset: int
    size: int
    type: str
    embedded: bool = False
    struct: "Struct | None" = None


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct type. `name` is as in `net/http.Request`, `package` its package's path as found (it may be
    vendored).

    `size` is in bytes; fields called `_` are left out, as nothing can name them. Types without a name have an
    empty one.
    """

    name: str
    package: str
    size: int
    fields: Mapping[str, Field]

    def offset(self, path: str) -> int | None:
        """Bytes from the struct's start to a field, or None if there is none.

        `path` may go through structs by value (`cw.res`), and as in Go a field of an embedded one may be
        named directly. It does not go through pointers: what they point to is another struct.
        """
        struct: Struct | None = self
        total = 0
        for name in path.split("."):
            step = None if struct is None else struct.find(name)
            if step is None:
                return None
            total += step[0]
            struct = step[1].struct
        return total

    def find(self, name: str) -> tuple[int, Field] | None:
        """Return A field of this struct or, by Go's rule for promoted fields, of the structs embedded in it
        by value.

        Returns its offset and itself; None where there is none or two are equally deep.
        """
        level: list[tuple[int, Struct]] = [(0, self)]
        for _ in range(_MAX_DEPTH):
            hits = [
                (base + struct.fields[name].offset, struct.fields[name])
                for base, struct in level
                if name in struct.fields
            ]
            if hits:
                return hits[0] if len(hits) == 1 else None
            level = [
                (base + field.offset, field.struct)
                for base, struct in level
                for field in struct.fields.values()
                if field.embedded and field.struct is not None
            ]
            if not 0 < len(level) < 1024:
                break
        return None


def split_type(name: str) -> tuple[str, str]:
    """Package path and own name of a type: `gopkg.in/yaml.v3.Node` is Node of gopkg.in/yaml.v3, as is
    `gopkg.in/yaml%2ev3.Node`.
    """
    head, bracket, arguments = name.partition("[")
    package, _, own = head.rpartition(".")
    return package.replace("%2e", "."), own + bracket + arguments


def same_package(found: str, wanted: str) -> bool:
    """Whether `found` is the package wanted or a vendored copy of it."""
    return found == wanted or found == f"vendor/{wanted}" or found.endswith(f"/vendor/{wanted}")


class StructReader:
    """Reads struct types, each descriptor once."""

    def __init__(self, image: Image, module: Moduledata) -> None:
        self._image = image
        self._module = module
        self._structs: dict[int, Struct] = {}
        self._types: dict[int, tuple[rtti.Type, str]] = {}
        self._fields_read = 0

    def find(self, names: Collection[str]) -> Mapping[str, Struct]:
        """Return the structs called by one of `names`; missing where there is none.

        A package's own copy goes before vendored ones, the standard library's vendored copy before others. A
        name that several types of one package share (types declared inside functions can) and that would give
        different offsets is left out. Raises CorruptError.
        """
        wanted: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            package, own = split_type(name)
            if not package:
                continue
            wanted.setdefault(own, []).append((package, name))
        found: dict[str, dict[str, list[int]]] = {}
        for address, own in named_descriptors(
            self._image, self._module.types, self._module.etypes, rtti.STRUCT, wanted.keys()
        ):
            path = self._package(address)
            for package, name in wanted[own]:
                if path is not None and same_package(path, package):
                    copies = found.setdefault(name, {}).setdefault(path, [])
                    if len(copies) >= _MAX_COPIES:
                        raise CorruptError(f"has more than {_MAX_COPIES} types called {name}")
                    copies.append(address)
        chosen: dict[str, Struct] = {}
        for name, by_path in found.items():
            exact = split_type(name)[0]
            best = min(by_path, key=lambda path: (path != exact, path != f"vendor/{exact}", path))
            structs = [struct for struct in map(self._try_read, by_path[best]) if struct is not None]
            if structs and all(struct == structs[0] for struct in structs):
                chosen[name] = structs[0]
        return chosen

    def all(self) -> Iterator[Struct]:
        """Every defined struct type of the program."""
        for address, _ in named_descriptors(
            self._image, self._module.types, self._module.etypes, rtti.STRUCT, None
        ):
            if self._package(address) is not None:
                struct = self._try_read(address)
                if struct is not None:
                    yield struct

    def _try_read(self, address: int) -> Struct | None:
        """Return the struct at `address`, or None if what is there only looked like a descriptor."""
        try:
            return self.read(address)
        except CorruptError:
            return None

    def read(self, address: int, depth: int = 0) -> Struct:
        """Return the struct described at `address`. Raises CorruptError."""
        struct = self._structs.get(address)
        if struct is not None:
            return struct
        if depth > _MAX_DEPTH:
            raise CorruptError(f"has a struct at {address:#x} that contains itself")
        head, text = self._type(address)
        if head.kind != rtti.STRUCT:
            raise CorruptError(f"has no struct at {address:#x}, where one should be")
        package = (self._package(address) or "") if head.flags & rtti.NAMED else ""
        name = f"{package}.{rtti.type_part(text)}" if package else text if head.flags & rtti.NAMED else ""
        fields: dict[str, Field] = {}
        for raw in rtti.read_fields(self._image, address):
            self._fields_read += 1
            if self._fields_read > _MAX_FIELDS:
                raise CorruptError("has more struct fields than any Go linker makes")
            if raw.name == "_":
                continue
            kind, type_text = self._type(raw.type)
            inner = self.read(raw.type, depth + 1) if kind.kind == rtti.STRUCT else None
            fields[raw.name] = Field(raw.name, raw.offset, kind.size, type_text, raw.embedded, inner)
        struct = self._structs[address] = Struct(name, package, head.size, fields)
        return struct

    def _package(self, address: int) -> str | None:
        """Return the package of the type described at `address`; None if it has none, as it then is no
        struct's descriptor.
        """
        try:
            path = rtti.package_path(self._image, self._module.types, address, rtti.STRUCT)
        except CorruptError:
            return None
        # Shapes stand in for type arguments while generic code is compiled; no value has one as its type.
        return path if path not in ("", "go.shape") else None

    def _type(self, address: int) -> tuple[rtti.Type, str]:
        known = self._types.get(address)
        if known is None:
            head = rtti.parse_type(self._image.read(address, rtti.TYPE_SIZE))
            text, _ = rtti.read_name(self._image, self._module.types + head.name)
            if head.flags & rtti.EXTRA_STAR:
                text = text[1:]
            known = self._types[address] = (head, text)
        return known


def candidates_of(path: str) -> Iterator[tuple[str, str]]:
    """(type, field path) that a path such as `net/http.Request.URL` may mean, likeliest first.

    The type's name follows the first dot after the last slash; where the last element of the package path
    holds dots itself (`gopkg.in/yaml.v3.Node.Kind`), a later one. Written `yaml%2ev3`, as the linker does,
    there is no doubt.
    """
    start = path.partition("[")[0].rfind("/") + 1
    bracket, close = path.find("[", start), path.rfind("]")
    dots = [at for at in range(start, len(path)) if path[at] == "." and not bracket < at < close]
    for end in dots[1:]:
        yield path[:end], path[end + 1 :]


def field_offset(structs: Mapping[str, Struct], path: str) -> int | None:
    """Bytes from a struct's start to a field of it, as in `net/http.Request.Method`; None if `structs`
    doesn't know.

    `structs` is by wanted name, as Executable.structs gives it for the types of `types_of`.
    """
    for name, fields in candidates_of(path):
        struct = structs.get(name)
        offset = struct.offset(fields) if struct is not None else None
        if offset is not None:
            return offset
    return None


def types_of(paths: Collection[str]) -> set[str]:
    """Return the types to look up for these field paths."""
    return {name for path in paths for name, _ in candidates_of(path)}
