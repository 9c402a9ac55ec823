"""Which offset a field has in an executable, and who says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from agent.executable import BuildInfo, Executable, MapGeometry, field_offset, types_of
from agent.offsets.geometry import part_names
from agent.offsets.table import Listed


class Source(Enum):
    """Where an offset comes from. The value is what users are shown."""

    TYPE_INFORMATION = "type information"
    TABLE = "offsets.json"
    NEIGHBOUR = "offsets.json, of the patch releases next to it"

    @property
    def exact(self) -> bool:
        """Whether it speaks of this very version. Only then may a program write where the offset points."""
        return self is not Source.NEIGHBOUR


class Table(Protocol):
    """The second source: offsets by field and by the version of the module that declares it."""

    def find(self, name: str, build_info: BuildInfo, arch: str) -> Listed | None:
        """Give the offset in bytes of a field such as `net/http.Request.Method`, or a part of a map's geometry such as
        `net/http.Header:group_size`; None where the table doesn't know it.
        """


@dataclass(frozen=True, slots=True)
class Resolution:
    """Offsets in bytes with their source, by field; Swiss maps' geometries, by map type. What is missing is unknown.

    `maps` are from type information. Where that has no geometry, `offsets` may have its parts, from the table. `types`
    says where types are described, in bytes from the first; only the executable itself can tell.
    """

    offsets: Mapping[str, tuple[int, Source]]
    maps: Mapping[str, MapGeometry]
    types: Mapping[str, int] = field(default_factory=dict)

    def writable(self, field: str) -> int | None:
        """The offset of a field, if it is certain enough to write there."""
        offset, source = self.offsets.get(field, (None, Source.NEIGHBOUR))
        return offset if source.exact else None


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves fields; without a table by type information alone."""

    table: Table | None = None

    def resolve(
        self,
        executable: Executable,
        *,
        fields: Collection[str],
        maps: Collection[str] = (),
        types: Collection[str] = (),
    ) -> Resolution:
        """Resolve fields such as `net/http.Request.Method`, the geometry of map types such as `net/http.Header`, and
        where types are described.

        Type information is exact for the very file, so it goes first; where it describes a struct, a field that this
        one lacks isn't looked up in the table. Raises ExecutableError where it is damaged.
        """
        structs = executable.structs(types_of(fields))
        found: dict[str, tuple[int, Source]] = {}
        for name in fields:
            offset = field_offset(structs, name)
            if offset is not None:
                found[name] = offset, Source.TYPE_INFORMATION
            elif structs.keys().isdisjoint(types_of([name])) and (listed := self._listed(executable, name)):
                found[name] = listed
        geometries: dict[str, MapGeometry] = {}
        for name in maps:
            geometry = executable.map_geometry(name)
            if geometry is not None:
                geometries[name] = geometry
                continue
            for part in part_names(name):
                if listed := self._listed(executable, part):
                    found[part] = listed
        return Resolution(found, geometries, executable.type_distances(types) if types else {})

    def _listed(self, executable: Executable, name: str) -> tuple[int, Source] | None:
        listed = self.table.find(name, executable.build_info, executable.arch) if self.table else None
        if listed is None:
            return None
        return listed.offset, Source.TABLE if listed.exact else Source.NEIGHBOUR
