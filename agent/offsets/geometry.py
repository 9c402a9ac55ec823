"""The parts of a Swiss map's geometry under the names that layouts and the table give them: `net/http.Header:slots`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from agent.executable import MapGeometry

_PARTS = tuple(field.name for field in fields(MapGeometry))


def parts(map_type: str, geometry: MapGeometry) -> Iterator[tuple[str, int]]:
    """Each part of the geometry, by its name."""
    for part in _PARTS:
        yield f"{map_type}:{part}", getattr(geometry, part)


def part_names(map_type: str) -> tuple[str, ...]:
    """The names of all parts."""
    return tuple(f"{map_type}:{part}" for part in _PARTS)
