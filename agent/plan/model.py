"""What a plan says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from agent.executable.places import At
from agent.libraries import Library
from agent.offsets.resolve import Source


class Status(Enum):
    """How much of a library is traced."""

    ON = "on"
    PARTIAL = "partial"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class PlannedProbe:
    """A program at one place of the file. `file_offset` is in bytes, as uprobes take it."""

    symbol: str
    program: str
    at: At
    file_offset: int
    instruction: str
    emulated: bool


@dataclass(frozen=True, slots=True)
class PlannedField:
    """Where a field lies in its struct, in bytes, and who said so."""

    field: str
    offset: int
    source: Source


@dataclass(frozen=True, slots=True)
class Off:
    """Something that is not traced, or not told, and the reason in words for an administrator."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class LibraryPlan:
    """What will be done for one library. `layouts` are the packed structs, by name, that its programs read."""

    library: Library
    version: str
    status: Status
    probes: tuple[PlannedProbe, ...]
    fields: tuple[PlannedField, ...]
    off: tuple[Off, ...]
    layouts: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done for one executable.

    `version` is the program's own, "" where build info has none; `sdk` is OpenTelemetry's SDK and its version, if the
    program makes spans by that as well; `off` is what concerns the executable as a whole.
    """

    path: str
    go_version: str
    version: str
    arch: str
    build_id: str
    sdk: str
    libraries: tuple[LibraryPlan, ...]
    off: tuple[Off, ...]

    @property
    def traced(self) -> tuple[LibraryPlan, ...]:
        """The libraries of which anything is traced."""
        return tuple(one for one in self.libraries if one.status is not Status.OFF)

    def same_probes(self, other: Plan) -> bool:
        """Whether the same programs would be attached to the same places, with the same layouts."""
        return [(one.library.name, one.probes, one.layouts) for one in self.traced] == [
            (one.library.name, one.probes, one.layouts) for one in other.traced
        ]
