"""All layouts of a program: read from its type information, and confirmed field by field by its DWARF."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from agent.executable import Executable, Field, MapGeometry, Struct, field_offset, types_of
from agent.offsets.dwarf import Dwarf
from agent.offsets.fields import Wanted
from agent.offsets.geometry import parts


class DisagreementError(Exception):
    """Type information and DWARF of one program differ, or one of them lacks a type that is wanted."""


@dataclass(frozen=True, slots=True)
class Layouts:
    """The struct types of a program and its Swiss maps' geometries, by name.

    `structs` and `maps` are those on which both sources agree to the byte. `unconfirmed` are types that only one source
    knows, with the name of that source.
    """

    structs: Mapping[str, Struct]
    maps: Mapping[str, MapGeometry]
    unconfirmed: Mapping[str, str]

    def offsets(self, wanted: Wanted) -> dict[str, int]:
        """The wanted offsets, by field. Missing are those that neither source knows: this version hasn't that field.

        Raises DisagreementError where only one source knows the type: the program then has to make it reachable.
        """
        found: dict[str, int] = {}
        for field in sorted(wanted.fields):
            offset = field_offset(self.structs, field)
            if offset is not None:
                found[field] = offset
            elif field_types := types_of([field]):
                self._refuse(field, field_types)
        for name in sorted(wanted.maps):
            map_type = name.partition(":")[0]
            if map_type in self.maps:
                found[name] = dict(parts(map_type, self.maps[map_type]))[name]
            else:
                self._refuse(name, {map_type})
        return found

    def _refuse(self, field: str, types: Iterable[str]) -> None:
        for name in types:
            if name in self.unconfirmed:
                raise DisagreementError(f"{field}: only the {self.unconfirmed[name]} has the type {name}")

    def dump(self) -> bytes:
        """Pack everything, for load."""
        document = {
            "structs": {name: _dump_struct(struct) for name, struct in self.structs.items()},
            "maps": {name: astuple(geometry) for name, geometry in self.maps.items()},
            "unconfirmed": dict(self.unconfirmed),
        }
        return gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0)

    @classmethod
    def load(cls, data: bytes) -> Layouts:
        """Unpack what dump has packed. Raises ValueError if it is anything else."""
        try:
            document = json.loads(gzip.decompress(data))
            return cls(
                {name: _load_struct(name, struct) for name, struct in document["structs"].items()},
                {name: MapGeometry(*geometry) for name, geometry in document["maps"].items()},
                document["unconfirmed"],
            )
        except (OSError, EOFError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"not the layouts of a program: {error}") from error


def read_layouts(path: Path) -> Layouts:
    """Read all layouts of the program at `path`, which must have DWARF.

    Raises DisagreementError if the two sources differ in anything that both of them know, ExecutableError if the
    program can't be read.
    """
    with path.open("rb") as file, Executable(str(path)) as executable:
        dwarf = Dwarf(file)
        structs: dict[str, Struct] = {}
        # A struct without fields has nothing to confirm. golang.org/x/net since 0.54 has such a serverConn, for Go 1.27
        # does the work itself.
        confirmable = {name for name in dwarf.names if not dwarf.is_empty(name)}
        unconfirmed = dict.fromkeys(confirmable | dwarf.maps, "DWARF")
        shared: set[str] = set()
        for struct in executable.all_structs():
            name = struct.name
            described = dwarf.structs(name)
            if not described:
                unconfirmed[name] = "type information"
                continue
            if not any(_same(struct, one) for one in described):
                raise DisagreementError(f"{name}: type information has {struct}, DWARF has {described}")
            if not all(_same(struct, one) for one in described):
                shared.add(name)
            structs[name] = struct
            unconfirmed.pop(name, None)
        # A name that functions share says nothing about a type; nobody may ask for it.
        for name in shared:
            del structs[name]
        maps = {}
        for name in dwarf.maps:
            read, described_map = executable.map_geometry(name), dwarf.map_geometry(name)
            if read is not None and described_map is not None and read != described_map:
                raise DisagreementError(f"{name}: type information has {read}, DWARF has {described_map}")
            if read == described_map:
                unconfirmed.pop(name, None)
                if read is not None:
                    maps[name] = read
            elif described_map is None:
                unconfirmed[name] = "type information"
    return Layouts(structs, maps, unconfirmed)


def _same(one: Struct, other: Struct) -> bool:
    """Whether two structs have the same size and the same fields at the same places, all the way down."""
    return (
        one.size == other.size
        and [*one.fields] == [*other.fields]
        and all(
            (a.offset, a.size, a.embedded, a.struct is None)
            == (b.offset, b.size, b.embedded, b.struct is None)
            and (a.struct is None or b.struct is None or _same(a.struct, b.struct))
            for a, b in zip(one.fields.values(), other.fields.values(), strict=True)
        )
    )


def _dump_struct(struct: Struct) -> list[Any]:
    fields = [
        [
            one.name,
            one.offset,
            one.size,
            int(one.embedded),
            *([_dump_struct(one.struct)] if one.struct else []),
        ]
        for one in struct.fields.values()
    ]
    return [struct.size, fields]


def _load_struct(name: str, dumped: list[Any]) -> Struct:
    size, dumped_fields = dumped
    fields = {}
    for field, offset, bytes_, embedded, *inner in dumped_fields:
        struct = _load_struct("", inner[0]) if inner else None
        fields[field] = Field(field, offset, bytes_, "", bool(embedded), struct)
    return Struct(name, "", size, fields)
