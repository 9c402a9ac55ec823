"""What the BPF programs want to know of Go's types, in the words of their layouts' declaration tags (bpf/go.h)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.kernel.btf import Btf
from agent.kernel.formats import format_of

LAYOUT_SUFFIX = "_layout"
"""Structs of this name hold offsets; one `<name>s` is the map that takes them."""

READ_TAG = "go:"
"""Declaration tag of a layout's member: the Go field whose offset it takes."""

EXACT_TAG = "go-exact:"
"""The same, for a field where programs write, or are sure of something: an offset that isn't certain won't do
(Source.exact).
"""

MAP_TAG = "go-map:"
"""Declaration tag of a layout's member: a map type and, behind a colon, the part of its geometry that it takes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Fields such as `net/http.Request.Method`, and parts of a Swiss map's geometry such as
    `net/http.Header:group_size` (the part is a member of MapGeometry).
    """

    fields: frozenset[str]
    maps: frozenset[str]

    @property
    def names(self) -> frozenset[str]:
        """Both: everything that the table has to answer."""
        return self.fields | self.maps


def wanted_fields(types: Iterable[Btf]) -> Wanted:
    """Collect what the layouts of BPF objects with these types want to know."""
    fields: set[str] = set()
    maps: set[str] = set()
    for one in types:
        for name in one.structs:
            if not name.endswith(LAYOUT_SUFFIX) or f"{name}s" not in one.variables:
                continue
            for member in format_of(one.struct(name)).fields:
                for tag in member.tags:
                    if tag.startswith(MAP_TAG):
                        maps.add(tag.removeprefix(MAP_TAG))
                    elif tag.startswith((READ_TAG, EXACT_TAG)):
                        fields.add(tag.partition(":")[2])
    return Wanted(frozenset(fields), frozenset(maps))
