"""Comparing what an executable's own type information says with what the table says of its versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.executable import Executable, field_offset, types_of
from agent.offsets.fields import Wanted
from agent.offsets.geometry import parts
from agent.offsets.table import Listed, Table


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field's offset in bytes as the executable has it, None where it has no such field, and what the table says."""

    field: str
    found: int | None
    listed: Listed | None

    @property
    def differs(self) -> bool:
        """Whether both know the field, and say different things."""
        return self.found is not None and self.listed is not None and self.found != self.listed.offset


def compare(executable: Executable, table: Table, wanted: Wanted) -> Iterator[Comparison]:
    """Compare each wanted field that either of the two knows, sorted by name. Raises ExecutableError."""
    structs = executable.structs(types_of(wanted.fields))
    found: dict[str, int | None] = {name: field_offset(structs, name) for name in wanted.fields}
    for map_type in {name.partition(":")[0] for name in wanted.maps}:
        geometry = executable.map_geometry(map_type)
        known = dict(parts(map_type, geometry)) if geometry else {}
        found |= {name: known.get(name) for name in wanted.maps if name.startswith(f"{map_type}:")}
    for name in sorted(found):
        listed = table.find(name, executable.build_info, executable.arch)
        if found[name] is not None or listed is not None:
            yield Comparison(name, found[name], listed)
