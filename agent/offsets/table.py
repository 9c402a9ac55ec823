"""The offset table: offsets of fields by the version of the module that declares them (docs/offsets.md).

It is the second source. An executable's own type information goes first, so the table is read only when that lacks
something.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agent.executable import BuildInfo
from agent.offsets.versions import STANDARD_LIBRARY, minor, neighbours, order, release

SCHEMA = 1
"""The version of the file's form: docs/offsets.schema.json."""

ARCHITECTURES = ("amd64", "arm64")

MAX_SIZE = 16 << 20
_MAX_OFFSET = (1 << 32) - 1
_MAX_RANGES = 1 << 20

_PATCHES_KEEP_LAYOUTS = re.compile(r"std|golang\.org/x/net|go\.opentelemetry\.io/otel(/.+)?")
"""Modules in which hardly a field ever moved between two patches of one minor version; in others, such as
google.golang.org/grpc, that is nothing unusual. Yet a patch of Go 1.26 did move net/http.response.status: Module.moves.
"""

_RELEASED_GO = re.compile(r"go(1\.\d+(?:\.\d+)?)")


class TableError(Exception):
    """A table can't be used: the message names the file, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Range:
    """An offset in bytes, and the versions from `first` to `last` that have it; of all architectures, or of one."""

    first: str
    last: str
    offset: int
    arch: str = ""


@dataclass(frozen=True, slots=True)
class Module:
    """What is known of a module. `versions`, oldest first, were all built, those of `arm64` for that as well.

    `unavailable` are versions that exist and could not be built, with the reason.
    """

    path: str
    versions: tuple[str, ...]
    arm64: tuple[str, ...]
    unavailable: Mapping[str, str]
    fields: Mapping[str, tuple[Range, ...]]
    _position: Mapping[str, int] = field(repr=False)

    def offset(self, name: str, version: str, arch: str) -> int | None:
        """The offset of a field in exactly this version; None if it has no such field, or isn't listed."""
        at = self._position.get(version)
        if at is None:
            return None
        for one in self.fields.get(name, ()):
            if one.arch in ("", arch) and self._position[one.first] <= at <= self._position[one.last]:
                return one.offset
        return None

    def moves(self, name: str) -> bool:
        """Whether a patch ever moved a field of the struct that this one belongs to, within a minor version.

        Then nothing is to be concluded from the patches so far about the next one.
        """
        struct = name.rpartition(".")[0]
        ranges = [
            one for field, found in self.fields.items() if field.rpartition(".")[0] == struct for one in found
        ]
        begun = ((self._position[one.first] - 1, one.first) for one in ranges)
        ended = ((self._position[one.last] + 1, one.last) for one in ranges)
        return any(
            0 <= at < len(self.versions) and minor(self.versions[at]) == minor(end)
            for at, end in (*begun, *ended)
        )

    def __contains__(self, version: str) -> bool:
        return version in self._position


@dataclass(frozen=True, slots=True)
class Listed:
    """What the table says of a field: its offset in bytes, of version `version`, which is the wanted one or its
    neighbour.
    """

    offset: int
    version: str
    exact: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and when it was made."""

    generated: datetime
    modules: Mapping[str, Module]

    def find(self, name: str, build_info: BuildInfo, arch: str) -> Listed | None:
        """The offset of a field such as `net/http.Request.Method` in a program of this build info and architecture.

        Exactly for its version. Else, of modules whose patches keep layouts, as the nearest patches before and after it
        in the same minor version say, where they agree; where it is newer than all of them (or older), as the nearest
        one says, unless fields of that struct are known to move. None where that leaves nothing.
        """
        for module in self._modules_of(name):
            version = version_in(module.path, build_info)
            if version is None:
                continue
            offset = module.offset(name, version, arch)
            if offset is not None:
                return Listed(offset, version, exact=True)
            if version in module or not _PATCHES_KEEP_LAYOUTS.fullmatch(module.path):
                continue
            near = neighbours(version, module.versions)
            offsets = {module.offset(name, one, arch) for one in near}
            if len(offsets) == 1 and (len(near) == 2 or not module.moves(name)):
                only = offsets.pop()
                return None if only is None else Listed(only, near[0], exact=False)
        return None

    def _modules_of(self, name: str) -> Iterator[Module]:
        for module in self.modules.values():
            if name in module.fields:
                yield module

    def dump(self) -> str:
        """The file's text: a line for each field, so that two tables can be compared by diff(1)."""
        return _dump(self)


def version_in(module: str, build_info: BuildInfo) -> str | None:
    """The version of a module in a program, as the table writes it. None where the program doesn't contain it, where
    build info doesn't say, and where another module was put in its place.

    A toolchain with a suffix (experiments, a distribution's patches) is not the release that it is made from.
    """
    if module == STANDARD_LIBRARY:
        match = _RELEASED_GO.fullmatch(build_info.go_version)
        return match[1] if match else None
    for one in (build_info.main, *build_info.dependencies):
        if one is not None and one.path == module:
            used = one.replaced_by or one
            return used.version if used.path == module and release(used.version) else None
    return None


@dataclass(slots=True)
class TableFile:
    """A table that is read when it is first asked something. A damaged one is told to `complain` once and then has no
    answers: that takes nothing from the programs whose own type information suffices.
    """

    path: Path
    complain: Callable[[TableError], None]
    _table: Table | None = None
    _read: bool = False

    def find(self, name: str, build_info: BuildInfo, arch: str) -> Listed | None:
        """As Table.find."""
        if not self._read:
            self._read = True
            try:
                self._table = load(self.path)
            except TableError as error:
                self.complain(error)
        return self._table.find(name, build_info, arch) if self._table else None


def load(path: Path) -> Table:
    """Read a table. Raises TableError if there is none, or if it is not in order."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}; it is made by `gospan offsets build`") from error
    if len(data) > MAX_SIZE:
        raise TableError(f"{path}: has more than {MAX_SIZE >> 20} MiB, so it is no offset table")
    try:
        return parse(data)
    except TableError as error:
        raise TableError(f"{path}: {error}") from None


def parse(data: bytes) -> Table:
    """Read the bytes of a table, and check all of it. Raises TableError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TableError(f"is damaged: {error}") from error
    top = _Reader("the table", document)
    schema = top.get("schema", int)
    if schema != SCHEMA:
        newer = "; a newer gospan reads it" if schema > SCHEMA else ""
        raise TableError(f"has schema {schema}, and this gospan reads schema {SCHEMA}{newer}")
    generated = top.time("generated")
    modules = top.mapping("modules")
    top.end()
    return Table(generated, {path: _module(path, modules.at(path)) for path in modules.names})


class _Reader:
    """A JSON object whose members are asked for one by one; says where in the file something is wrong."""

    def __init__(self, place: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise TableError(f"is damaged: {place} is no JSON object")
        self.place = place
        self._value: dict[str, Any] = value
        self._asked: set[str] = set()

    @property
    def names(self) -> list[str]:
        return list(self._value)

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        self._asked.add(name)
        value = self._value.get(name, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise TableError(f"is damaged: {name!r} of {self.place} is missing, or no {kind.__name__}")
        return value

    def mapping(self, name: str, *, optional: bool = False) -> _Reader:
        return _Reader(f"{name!r} of {self.place}", self.get(name, dict, {} if optional else None))

    def at(self, name: str) -> _Reader:
        return _Reader(name, self.get(name, dict))

    def texts(self, name: str, *, optional: bool = False) -> tuple[str, ...]:
        found = self.get(name, list, [] if optional else None)
        if not all(isinstance(one, str) for one in found):
            raise TableError(f"is damaged: {name!r} of {self.place} holds something else than texts")
        # Versions, each of which stands in the table many times and is to be in memory once.
        return tuple(map(sys.intern, found))

    def time(self, name: str) -> datetime:
        text = self.get(name, str)
        try:
            return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        except ValueError as error:
            raise TableError(f"is damaged: {name!r} of {self.place} is no time: {text[:40]!r}") from error

    def end(self) -> None:
        unknown = self._value.keys() - self._asked
        if unknown:
            raise TableError(f"is damaged: {self.place} has an unknown member {min(unknown)[:80]!r}")


def _module(path: str, reader: _Reader) -> Module:
    versions = reader.texts("versions")
    if any(release(one) is None for one in versions) or list(versions) != sorted(set(versions), key=order):
        raise TableError(f"is damaged: the versions of {path} are not releases from old to new")
    arm64 = reader.texts("arm64", optional=True)
    if not set(arm64) <= set(versions):
        raise TableError(f"is damaged: the versions of {path} for arm64 are not among its versions")
    unavailable = reader.mapping("unavailable", optional=True)
    reasons = {version: str(unavailable.get(version, str)) for version in unavailable.names}
    offsets = reader.mapping("offsets")
    position = {version: number for number, version in enumerate(versions)}
    fields = {
        name: tuple(_range(f"{name} of {path}", one, position) for one in offsets.get(name, list))
        for name in offsets.names
    }
    if sum(map(len, fields.values())) > _MAX_RANGES:
        raise TableError(f"is damaged: {path} has more than {_MAX_RANGES} ranges")
    reader.end()
    return Module(path, versions, arm64, reasons, fields, position)


def _range(place: str, value: Any, position: Mapping[str, int]) -> Range:
    reader = _Reader(f"a range of {place}", value)
    first, last, offset = reader.get("from", str), reader.get("to", str), reader.get("offset", int)
    arch = reader.get("arch", str, "")
    reader.end()
    if not (first in position and last in position and position[first] <= position[last]):
        raise TableError(f"is damaged: {reader.place} goes from {first[:40]!r} to {last[:40]!r}")
    if not 0 <= offset <= _MAX_OFFSET or arch not in ("", *ARCHITECTURES):
        raise TableError(f"is damaged: {reader.place} has offset {offset} for {arch[:40] or 'all'}")
    return Range(sys.intern(first), sys.intern(last), offset, arch)


def _dump(table: Table) -> str:
    lines = ["{", f'  "schema": {SCHEMA},']
    lines += [f'  "generated": "{table.generated:%Y-%m-%dT%H:%M:%SZ}",', '  "modules": {']
    for number, module in enumerate(sorted(table.modules.values(), key=lambda one: one.path)):
        lines[-1] += "," if number else ""
        lines += [f"    {json.dumps(module.path)}: {{"]
        lines += [f'      "versions": {_wrapped(module.versions)},']
        lines += [f'      "arm64": {_wrapped(module.arm64)},']
        lines += [f'      "unavailable": {_members(module.unavailable)},']
        offsets = {
            name: [_range_members(one) for one in module.fields[name]] for name in sorted(module.fields)
        }
        lines += [f'      "offsets": {_members(offsets)}', "    }"]
    return "\n".join([*lines, "  }", "}", ""])


def _range_members(one: Range) -> dict[str, str | int]:
    members: dict[str, str | int] = {"from": one.first, "to": one.last, "offset": one.offset}
    return members | ({"arch": one.arch} if one.arch else {})


def _members(values: Mapping[str, Any]) -> str:
    lines = [f"        {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()]
    return "{\n" + ",\n".join(lines) + "\n      }" if lines else "{}"


def _wrapped(versions: tuple[str, ...]) -> str:
    """A list of versions, those of one minor version on a line."""
    lines: dict[str, list[str]] = {}
    for version in versions:
        lines.setdefault(".".join(version.split(".")[:2]), []).append(json.dumps(version))
    body = ",\n".join("        " + ", ".join(line) for line in lines.values())
    return f"[\n{body}\n      ]" if body else "[]"
