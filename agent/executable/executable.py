"""One executable file, and all that is asked about it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, wraps
from itertools import islice
from types import TracebackType
from typing import TypeVar, cast

from agent.executable import pclntab
from agent.executable.buildinfo import BuildInfo, find_build_info
from agent.executable.elf import Image
from agent.executable.errors import CorruptError, ExecutableError
from agent.executable.itabs import Itab, read_itabs
from agent.executable.maps import MapGeometry, find_map, find_map_geometry
from agent.executable.moduledata import Moduledata, find_moduledata
from agent.executable.names import TypeNames
from agent.executable.places import Body, Function, Place
from agent.executable.scan import TypeScan
from agent.executable.source import Source
from agent.executable.structreader import StructReader
from agent.executable.structs import Struct

_NOTE_GO_BUILD_ID = (b"Go", 4)
_NOTE_GNU_BUILD_ID = (b"GNU", 3)
_MAX_TABLES = 16

_M = TypeVar("_M", bound=Callable[..., object])


def _naming(method: _M) -> _M:
    """Let every error of a method name the file."""

    @wraps(method)
    def named(self: Executable, *args: object, **kwargs: object) -> object:
        try:
            return method(self, *args, **kwargs)
        except ExecutableError as error:
            error.path = error.path or self.path
            raise

    return cast(_M, named)


class Executable:
    """A Go program in a file: build info, functions, types and places for probes.

    Addresses are those the linker gave; in a position-independent program (`pie`) they are shifted at run time, file
    offsets are not. Everything is looked up on demand and may raise ExecutableError (a file can be damaged anywhere).

    Raises ExecutableError if the file can't be read, NotGoError if it is no Go program, UnsupportedError if it is one
    of another kind than this agent reads, CorruptError if it is damaged.
    """

    def __init__(self, path: str, *, fd: int | None = None) -> None:
        """Open `path`; with `fd`, read that open file instead (it is duplicated) and use `path` in messages only."""
        self.path = path
        self._source = Source(path, fd)
        self._last_body: tuple[Function, Body] | None = None
        try:
            self._open()
        except BaseException:
            self._source.close()
            raise

    @_naming
    def _open(self) -> None:
        self._image = Image(self._source)
        self.arch = self._image.arch
        self.pie = self._image.pie
        self.segments = self._image.segments
        self.build_info: BuildInfo = find_build_info(self._image)
        notes = {(note.owner, note.kind): note.descriptor for note in self._image.notes()}
        self.build_id = notes.get(_NOTE_GO_BUILD_ID, b"").decode("utf-8", "replace")
        self.gnu_build_id = notes.get(_NOTE_GNU_BUILD_ID, b"").hex()

    def close(self) -> None:
        """Close the file; idempotent."""
        self._source.close()
        self._last_body = None

    def __enter__(self) -> Executable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def _tables(self) -> tuple[pclntab.Pclntab, Moduledata]:
        for table in islice(pclntab.find_pclntab(self._image), _MAX_TABLES):
            module = find_moduledata(self._image, table, self.build_info.minor)
            if module is not None:
                return table, module
        raise CorruptError("its function table or moduledata can't be found; was it packed or obfuscated?")

    @cached_property
    def _names(self) -> TypeNames:
        return TypeNames(self._image, self._tables[1])

    @cached_property
    def _structs(self) -> StructReader:
        return StructReader(self._image, self._tables[1], self._scan)

    @cached_property
    def _scan(self) -> TypeScan:
        module = self._tables[1]
        return TypeScan(self._image, module.types, module.etypes)

    @property
    @_naming
    def known_layout(self) -> bool:
        """Whether this Go release's moduledata was known, or read by the program's own description of it."""
        return self._tables[1].known_layout

    @_naming
    def functions(self, names: Collection[str]) -> Mapping[str, tuple[Function, ...]]:
        """Return the functions with these linker names, by wanted name; missing where there is none.

        Vendored copies count as the wanted name, so there may be several. Function.name is the one found.
        """
        table, module = self._tables
        return {
            wanted: tuple(self._function(module, entry) for entry in entries)
            for wanted, entries in pclntab.find_entries(self._image, table, names).items()
        }

    def _function(self, module: Moduledata, entry: pclntab.Entry) -> Function:
        address = module.text_address(entry.offset)
        segment = self._image.segment(address, entry.size)
        if segment is None or not segment.executable:
            raise CorruptError(f"function {entry.name} at {address:#x} lies outside the code")
        return Function(entry.name, address, entry.size, self._image.file_offset(address))

    @_naming
    def structs(self, names: Collection[str]) -> Mapping[str, Struct]:
        """Return the struct types with these names (`net/http.Request`), by wanted name; missing where there is none.

        A package's own type goes before a vendored copy of it. See structreader.StructReader.find.
        """
        return self._structs.find(names)

    @_naming
    def all_structs(self) -> list[Struct]:
        """Every defined struct type in the program."""
        return list(self._structs.all())

    @_naming
    def type_distances(self, names: Collection[str]) -> Mapping[str, int]:
        """Return how many bytes behind the program's first type each of these is described: defined structs and maps.

        Where the types are in memory isn't known of a PIE; how far they are apart is. Missing where there is none, or
        more than one of that name.
        """
        module = self._tables[1]
        found = dict(self._structs.addresses(names))
        for name in names:
            address = find_map(self._image, module, self._scan, name) if name not in found else None
            if address is not None:
                found[name] = address
        return {name: address - module.types for name, address in found.items()}

    @_naming
    def map_geometry(self, name: str) -> MapGeometry | None:
        """Where keys and elems are in Swiss maps of a type (`net/http.Header`); None before Go 1.24 or without it."""
        return find_map_geometry(self._image, self._tables[1], self._scan, name)

    @_naming
    def itabs(self, interfaces: Collection[str] | None = None) -> Mapping[int, Itab]:
        """Return what each itab in the file stands for, by its address; those of some interfaces, or of all."""
        return read_itabs(self._image, self._tables[1], self._names, interfaces)

    @_naming
    def type_name(self, address: int) -> str | None:
        """Return the full name of the type described at `address`, such as `*net/http.body`; None if none is there."""
        return self._names.at(address)

    @property
    @_naming
    def types_from_code(self) -> int:
        """How many bytes the type descriptors are from the start of the code, as the kernel reckons it
        (mm_struct.start_code: the lowest executable segment), wherever the program is loaded.
        """
        return self._tables[1].types - min(one.address for one in self.segments if one.executable)

    @_naming
    def entry_place(self, function: Function) -> Place:
        """Where to probe calls of a function. Raises NoPlaceError if there is no safe place."""
        return self._body(function).entry()

    @_naming
    def work_place(self, function: Function) -> Place:
        """Where to probe the calls of a function that its first test lets through; every call where that can't be told.

        Raises NoPlaceError if there is no safe place.
        """
        return self._body(function).work()

    @_naming
    def return_places(self, function: Function) -> tuple[Place, ...]:
        """Where to probe returns from a function; empty if it has none. Raises NoPlaceError if it can't be decoded."""
        return self._body(function).returns()

    @_naming
    def call_places(self, function: Function, callees: Collection[Function]) -> tuple[Place, ...]:
        """Where to probe the calls that a function makes of some others; empty if it makes none by itself.

        Raises NoPlaceError if it can't be decoded.
        """
        return self._body(function).calls({one.address for one in callees})

    @_naming
    def after_call_places(self, function: Function, callees: Collection[Function]) -> tuple[Place, ...]:
        """Where to probe what such calls give back. Raises NoPlaceError if there is no safe and cheap place."""
        return self._body(function).after_calls({one.address for one in callees})

    @_naming
    def failure_places(self, function: Function, callees: Collection[Function]) -> tuple[Place, ...]:
        """Where to probe such calls that make the function give up; empty where none of them does.

        Raises NoPlaceError if it can't be decoded.
        """
        return self._body(function).failures({one.address for one in callees})

    @_naming
    def tail_places(self, function: Function) -> tuple[Place, ...]:
        """Where to probe that a function returns what its last call has. Raises NoPlaceError if it can't be decoded."""
        return self._body(function).tails()

    @_naming
    def kept_arguments(self, function: Function) -> Mapping[int, int]:
        """Where a function keeps its arguments. See Body.kept_arguments. Raises NoPlaceError if it can't be decoded."""
        return self._body(function).kept_arguments()

    def _body(self, function: Function) -> Body:
        # Only the last one is kept: entry and returns are asked for one after the other.
        if self._last_body is None or self._last_body[0] != function:
            self._last_body = function, Body(self._image, function)
        return self._last_body[1]
