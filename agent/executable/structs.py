"""Struct types of a program and the offsets of their fields, also by paths such as `net/http.Request.URL`."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

_MAX_DEPTH = 32
_MAX_EMBEDDED = 1024


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct: offset from the struct's start and size of its type, in bytes; `type` is as Go prints it.

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
    """A struct type. `name` is as in `net/http.Request`, `package` its package's path as found (it may be vendored).

    `size` is in bytes; fields called `_` are left out, as nothing can name them. Types without a name have an empty
    one.
    """

    name: str
    package: str
    size: int
    fields: Mapping[str, Field]

    def offset(self, path: str) -> int | None:
        """Bytes from the struct's start to a field, or None if there is none.

        `path` may go through structs by value (`cw.res`), and as in Go a field of an embedded one may be named
        directly. It does not go through pointers, embedded or not: what they point to is another struct.
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
        """Return a field of this struct or, by Go's rule for promoted fields, of the structs embedded in it by value.

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
            if not 0 < len(level) < _MAX_EMBEDDED:
                break
        return None


def split_type(name: str) -> tuple[str, str]:
    """Package path and own name of a type: `gopkg.in/yaml.v3.Node`, also spelled `yaml%2ev3`, is a Node."""
    head, bracket, arguments = name.partition("[")
    package, _, own = head.rpartition(".")
    return package.replace("%2e", "."), own + bracket + arguments


def same_package(found: str, wanted: str) -> bool:
    """Whether `found` is the package wanted or a vendored copy of it."""
    return found == wanted or found == f"vendor/{wanted}" or found.endswith(f"/vendor/{wanted}")


def candidates_of(path: str) -> Iterator[tuple[str, str]]:
    """(type, field path) that a path such as `net/http.Request.URL` may mean, likeliest first.

    The type's name follows the first dot after the last slash; where the last element of the package path holds dots
    itself (`gopkg.in/yaml.v3.Node.Kind`), a later one. Written `yaml%2ev3`, as the linker does, there is no doubt.
    """
    start = path.partition("[")[0].rfind("/") + 1
    bracket, close = path.find("[", start), path.rfind("]")
    dots = [at for at in range(start, len(path)) if path[at] == "." and not bracket < at < close]
    for end in dots[1:]:
        yield path[:end], path[end + 1 :]


def field_offset(structs: Mapping[str, Struct], path: str) -> int | None:
    """Bytes from a struct's start to a field of it, as in `net/http.Request.Method`; None if `structs` doesn't know.

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
