"""Which offset a field has in an executable, and who says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from agent.executable import BuildInfo, Executable, MapGeometry, field_offset, types_of


class Source(Enum):
    """Where an offset comes from. The value is what users are shown."""

    TYPE_INFORMATION = "type information"
    TABLE = "offsets.json"


class Table(Protocol):
    """The second source: offsets by field and by the version of the module that declares it."""

    def offset(self, build_info: BuildInfo, field: str) -> int | None:
        """Give the offset in bytes of a field such as `net/http.Request.Method`; None where the table has none for
        exactly this version.
        """


@dataclass(frozen=True, slots=True)
class Resolution:
    """Offsets in bytes with their source, by field; Swiss maps' geometries, by map type. What is missing is unknown."""

    offsets: Mapping[str, tuple[int, Source]]
    maps: Mapping[str, MapGeometry]


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves fields; without a table by type information alone."""

    table: Table | None = None

    def resolve(
        self, executable: Executable, *, fields: Collection[str], maps: Collection[str] = ()
    ) -> Resolution:
        """Resolve fields such as `net/http.Request.Method` and the geometry of map types such as `net/http.Header`.

        Type information is exact for the very file, so it goes first. Raises ExecutableError where it is damaged.
        """
        structs = executable.structs(types_of(fields))
        found: dict[str, tuple[int, Source]] = {}
        for field in fields:
            offset = field_offset(structs, field)
            if offset is not None:
                found[field] = offset, Source.TYPE_INFORMATION
                continue
            listed = self.table.offset(executable.build_info, field) if self.table else None
            if listed is not None:
                found[field] = listed, Source.TABLE
        geometries = {name: executable.map_geometry(name) for name in maps}
        return Resolution(found, {name: one for name, one in geometries.items() if one is not None})
