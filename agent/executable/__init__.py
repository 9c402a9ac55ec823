"""One executable file in, facts out: build info, functions, types and places for probes.

Nothing here needs privileges, and nothing trusts the file: every count has a bound, and whatever is wrong with a file
becomes an ExecutableError that says what.
"""

from agent.executable.buildinfo import BuildInfo, Module
from agent.executable.errors import (
    CorruptError,
    ExecutableError,
    LimitError,
    NoPlaceError,
    NotGoError,
    UnsupportedError,
)
from agent.executable.executable import Executable
from agent.executable.itabs import Itab
from agent.executable.maps import MapGeometry
from agent.executable.places import Function, Place
from agent.executable.structs import Field, Struct, field_offset, types_of

__all__ = [
    "BuildInfo",
    "CorruptError",
    "Executable",
    "ExecutableError",
    "Field",
    "Function",
    "Itab",
    "LimitError",
    "MapGeometry",
    "Module",
    "NoPlaceError",
    "NotGoError",
    "Place",
    "Struct",
    "UnsupportedError",
    "field_offset",
    "types_of",
]
