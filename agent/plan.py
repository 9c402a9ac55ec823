"""The plan of an executable: which probes will be attached and where, what they need to know, and why the rest is off.

A pure function of the executable's bytes, the offset table and the BPF objects' types. `gospan inspect` prints it,
the daemon carries it out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum

from agent.executable import BuildInfo, Executable, Function, NoPlaceError, Place, types_of
from agent.executable.places import At
from agent.kernel.btf import Btf
from agent.kernel.formats import Format, Value, format_of
from agent.libraries import LIBRARIES, Feature, Library, Probe
from agent.libraries.library import ARGUMENT, CALLS, WITHOUT
from agent.offsets.resolve import Resolution, Resolver, Source

LAYOUT_SUFFIX = "_layout"
"""Structs of this name hold offsets; one `<name>s` is the map that takes them, an entry an executable."""

RUNTIME_LAYOUT = "runtime_layout"
"""The layout that all libraries share (bpf/go.h)."""

FIELD_TAG = "go:"
"""Declaration tag of a layout's member: the Go field whose offset it takes."""

MAP_TAG = "go-map:"
"""Declaration tag of a layout's member: a map type and, behind a colon, the part of its geometry that it takes."""

ADDRESS_TAG = "go-address:"
"""Declaration tag of a layout's member that takes the distance of something from the start of the code."""

TYPE_TAG = "go-type:"
"""Declaration tag of a layout's member: a type, and the member takes where it is described."""

EXACT_TAG = "go-exact:"
"""The same as FIELD_TAG, but only an offset of this very version will do (Resolution.writable)."""

TYPED_TAG = "go-typed:"
"""The same as FIELD_TAG, of a field that the offset table doesn't have: type information alone tells."""

ITAB_TAG = "go-itab:"
"""Declaration tag of a layout's member: a type and an interface, `*bufio.Writer as io.Writer`, whose itab's address it
takes."""

PLACE_TAG = "go-place:"
"""Declaration tag of a layout's member: the function whose probe's address it takes, or, with CALLS, that of a probe on
a function's only call of another one.
"""

FAILURE_TAG = "go-failure:"
"""Declaration tag of a layout's member: two functions with WITHOUT between them, of which it takes how far from the
start of the code the first one gives up because its only call of the second one has failed.
"""

KEPT_TAG = "go-kept:"
"""Declaration tag of a layout's member: a function and the number of one of its arguments, `f argument 1`, of which it
takes how far from the stack pointer the function keeps it.
"""

ARRAY_TAG = "go-array:length of "
"""Declaration tag of a layout's member: a field that points to an array, of which it takes the number of elements."""

_WHOLE_TAGS = (ADDRESS_TAG, EXACT_TAG)
"""Tags that values go by as they are; by the others go what they name."""

SDK = "go.opentelemetry.io/otel/sdk"
"""The module of OpenTelemetry's own SDK for Go."""

_SDK_FUNCTION = f"{SDK}/trace.(*TracerProvider).Tracer"
"""What every program has that makes spans by the SDK: the provider is an interface's."""

_RUNTIME = Feature(what="goroutines", fields=(("runtime.g.goid",),), required=True)


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


def make_plan(
    executable: Executable,
    types: Mapping[str, Btf],
    resolver: Resolver,
    *,
    libraries: Iterable[Library] = LIBRARIES,
    disabled: Mapping[str, str] | None = None,
) -> Plan:
    """Plan an executable. `types` are those of each BPF object by its name, `disabled` libraries with the reason.

    Raises ExecutableError where the file can't be read as a Go program. What is wrong with one library only turns
    off that library.
    """
    # Of a library whose object can't be read, that is told where the objects are.
    libraries = tuple(library for library in libraries if library.object in types)
    functions = executable.functions(
        {
            symbol
            for library in libraries
            for probe in library.probes
            for symbol in (*probe.symbols, *probe.calls)
        }
        | {symbol for library in libraries for symbol in library.only_with}
        | {_SDK_FUNCTION}
    )
    present = [one for one in libraries if _is_present(one, functions)]
    layouts = {one.object: _layouts(types[one.object]) for one in present}
    resolution = resolver.resolve(
        executable,
        fields={
            tag
            for formats in layouts.values()
            for prefix in (FIELD_TAG, EXACT_TAG, TYPED_TAG)
            for tag in _tags(formats.values(), prefix)
        }
        | {field for one in present if one.substitute for field in one.substitute.fields},
        maps={
            tag.partition(":")[0] for formats in layouts.values() for tag in _tags(formats.values(), MAP_TAG)
        },
        types={tag for formats in layouts.values() for tag in _tags(formats.values(), TYPE_TAG)},
    )
    addresses = _addresses(
        executable, functions, [one for formats in layouts.values() for one in formats.values()]
    )
    planned = tuple(
        _plan_library(
            library, executable, functions, layouts[library.object], resolution, addresses, disabled or {}
        )
        for library in present
    )
    planned = tuple(_unless_substituted(one, planned, executable, resolution) for one in planned)
    info = executable.build_info
    off = () if planned else (Off("the executable", "it contains none of the libraries that can be traced"),)
    return Plan(
        executable.path,
        info.go_version,
        _program_version(info),
        executable.arch,
        executable.build_id,
        f"{SDK} {_module_version(info, SDK)}".rstrip() if _SDK_FUNCTION in functions else "",
        planned,
        off,
    )


def _is_present(library: Library, functions: Mapping[str, tuple[Function, ...]]) -> bool:
    """A library is in an executable where one of its functions is: build info may list what the linker left out, and
    distributions' builds list nothing at all.
    """
    return any(symbol in functions for probe in library.probes for symbol in probe.symbols) and (
        not library.only_with or any(symbol in functions for symbol in library.only_with)
    )


def _layouts(types: Btf) -> dict[str, Format]:
    return {
        name: format_of(types.struct(name))
        for name in types.structs
        if name.endswith(LAYOUT_SUFFIX) and f"{name}s" in types.variables
    }


def _tags(formats: Iterable[Format], prefix: str) -> set[str]:
    return {
        tag.removeprefix(prefix)
        for layout in formats
        for field in layout.fields
        for tag in field.tags
        if tag.startswith(prefix)
    }


def _plan_library(
    library: Library,
    executable: Executable,
    functions: Mapping[str, tuple[Function, ...]],
    layouts: Mapping[str, Format],
    resolution: Resolution,
    addresses: Mapping[str, int],
    disabled: Mapping[str, str],
) -> LibraryPlan:
    fields = tuple(sorted(_fields(layouts.values(), resolution), key=lambda one: one.field))
    version = _version(library, executable)
    if why := disabled.get(library.name) or library.not_on.get(executable.arch):
        return LibraryPlan(library, version, Status.OFF, (), fields, (Off(library.name, why),), {})
    probes: list[PlannedProbe] = []
    missing: list[tuple[Off, bool]] = []
    for probe in library.probes:
        places, reason = _places(probe, executable, functions)
        probes += [
            PlannedProbe(one.symbol, probe.program, one.at, one.file_offset, one.instruction, one.emulated)
            for one in places
        ]
        if reason:
            missing.append((Off(probe.gives, reason), probe.required))
    known = {one.field for one in fields} | addresses.keys()
    attached = {name for one in probes for name in (one.program, one.symbol)}
    features = (_RUNTIME, *(one for one in library.features if not one.of or one.of in attached))
    missing += [
        (Off(one.what, reason), one.required)
        for one in features
        if (reason := _lack(one, known, resolution.offsets.keys()))
    ]
    off = tuple(one for one, _ in missing)
    if any(required for _, required in missing):
        return LibraryPlan(library, version, Status.OFF, (), fields, off, {})
    values = {one.field: one.offset for one in fields} | dict(addresses)
    for one in fields:
        if one.source.exact:
            values[f"{EXACT_TAG}{one.field}"] = one.offset
    values[f"{ADDRESS_TAG}types"] = executable.types_from_code
    packed = {name: _pack(layout, values) for name, layout in layouts.items()}
    return LibraryPlan(
        library, version, Status.PARTIAL if off else Status.ON, tuple(probes), fields, off, packed
    )


def _unless_substituted(
    plan: LibraryPlan, others: Iterable[LibraryPlan], executable: Executable, resolution: Resolution
) -> LibraryPlan:
    """The plan of a library, without what another one tells in this executable."""
    substitute = plan.library.substitute
    if substitute is None or plan.status is Status.OFF:
        return plan
    attached = {
        probe.program for one in others if one.library.name == substitute.library for probe in one.probes
    }
    if not (attached.issuperset(substitute.programs) and resolution.offsets.keys() >= {*substitute.fields}):
        return plan
    types = {one.type for one in executable.itabs({substitute.interface}).values()}
    if not types or not types.issubset(substitute.types):
        return plan
    why = f"all of it goes through {substitute.library}, whose probes tell of it at fewer hits"
    probes = tuple(one for one in plan.probes if one.program in substitute.but)
    if not probes:
        return replace(plan, status=Status.OFF, probes=(), off=(Off(plan.library.name, why),), layouts={})
    return replace(plan, status=Status.PARTIAL, probes=probes, off=(Off("what gets a connection", why),))


def _places(
    probe: Probe, executable: Executable, functions: Mapping[str, tuple[Function, ...]]
) -> tuple[list[Place], str]:
    """Where a probe goes, and the reason if that is nowhere and anything is lost by it."""
    found, callees = (
        [function for symbol in symbols for function in functions.get(symbol, ())]
        for symbols in (probe.symbols, probe.calls)
    )
    if not found or (probe.calls and not callees):
        if probe.required or probe.absent:
            missing = probe.calls if found else probe.symbols
            reason = f": {probe.absent}" if probe.absent else ""
            return [], f"the executable has no function {missing[0]}{reason}"
        return [], ""
    places: list[Place] = []
    reasons: list[str] = []
    for function in found:
        try:
            match probe.at:
                case "entry":
                    places.append(executable.entry_place(function))
                case "return":
                    places += executable.return_places(function)
                case "call":
                    places += executable.call_places(function, callees)
                case "work":
                    places.append(executable.work_place(function))
                case "tail":
                    places += executable.tail_places(function)
                case "failure":
                    places += executable.failure_places(function, callees)
                case "after":
                    places += executable.after_call_places(function, callees)
        except NoPlaceError as error:
            if probe.at == "after":
                return _returns(callees, executable)
            reasons.append(f"no safe place for a probe: {error.what}")
    if probe.calls and not places and not reasons:
        unlike = (
            "does something else where it can't" if probe.at == "failure" else "the compiler has inlined it"
        )
        reasons.append(f"{probe.symbols[0]} doesn't call {probe.calls[0]}: {unlike}")
    return places, "; ".join(reasons)


def _returns(functions: Iterable[Function], executable: Executable) -> tuple[list[Place], str]:
    """Every return of some functions, and why one of them has no place for a probe."""
    places: list[Place] = []
    try:
        for function in functions:
            places += executable.return_places(function)
    except NoPlaceError as error:
        return places, f"no safe place for a probe: {error.what}"
    return places, ""


def _fields(layouts: Iterable[Format], resolution: Resolution) -> set[PlannedField]:
    fields: set[PlannedField] = set()
    parts = _tags(layouts, MAP_TAG)
    for name in _tags(layouts, FIELD_TAG) | _tags(layouts, TYPED_TAG) | parts:
        if name in resolution.offsets:
            fields.add(PlannedField(name, *resolution.offsets[name]))
    for name in _tags(layouts, TYPE_TAG):
        if name in resolution.types:
            fields.add(PlannedField(name, resolution.types[name], Source.TYPE_INFORMATION))
    for name in _tags(layouts, EXACT_TAG):
        if resolution.writable(name) is not None:
            fields.add(PlannedField(name, *resolution.offsets[name]))
    for name in parts:
        map_type, _, member = name.partition(":")
        if map_type in resolution.maps:
            geometry = getattr(resolution.maps[map_type], member)
            fields.add(PlannedField(name, geometry, Source.TYPE_INFORMATION))
    return fields


def _addresses(
    executable: Executable, functions: Mapping[str, tuple[Function, ...]], layouts: Iterable[Format]
) -> dict[str, int]:
    """What layouts want besides offsets: addresses of itabs, and of the probes of functions that there is one of; where
    such functions give up, and where they keep their arguments; how long arrays are.
    """
    found: dict[str, int] = {}
    itabs = _tags(layouts, ITAB_TAG)
    if itabs:
        interfaces = {name.partition(" as ")[2] for name in itabs}
        found = {
            name: address
            for address, itab in executable.itabs(interfaces).items()
            if (name := f"{itab.type} as {itab.interface}") in itabs
        }
    for symbol in _tags(layouts, PLACE_TAG):
        with suppress(NoPlaceError, ValueError):
            name, _, callee = symbol.partition(CALLS)
            (function,) = functions.get(name, ())
            if callee:
                (place,) = executable.call_places(function, functions.get(callee, ()))
            else:
                place = executable.entry_place(function)
            found[symbol] = place.address
    code = min(one.address for one in executable.segments if one.executable)
    for symbol in _tags(layouts, FAILURE_TAG):
        with suppress(NoPlaceError, ValueError):
            name, _, callee = symbol.partition(WITHOUT)
            (function,) = functions.get(name, ())
            (place,) = executable.failure_places(function, functions.get(callee, ()))
            found[symbol] = place.address - code
    found |= _kept_arguments(executable, functions, _tags(layouts, KEPT_TAG))
    return found | _array_lengths(executable, _tags(layouts, ARRAY_TAG))


def _kept_arguments(
    executable: Executable, functions: Mapping[str, tuple[Function, ...]], names: Collection[str]
) -> dict[str, int]:
    """How far from the stack pointer functions keep these arguments, by what _pack calls them."""
    found: dict[str, int] = {}
    for symbol in sorted({name.partition(ARGUMENT)[0] for name in names}):
        with suppress(NoPlaceError, ValueError):
            (function,) = functions.get(symbol, ())
            kept = executable.kept_arguments(function)
            found |= {f"{symbol}{ARGUMENT}{number}": at for number, at in kept.items()}
    return {name: at for name, at in found.items() if name in names}


def _array_lengths(executable: Executable, names: Collection[str]) -> dict[str, int]:
    """How many elements the arrays have that these fields point to, by what _pack calls them."""
    found: dict[str, int] = {}
    for type_name, struct in (executable.structs(types_of(names)) if names else {}).items():
        for name in names:
            field = struct.fields.get(name.removeprefix(f"{type_name}."))
            length = re.match(r"\*\[(\d+)\]", field.type) if field else None
            if length:
                found[f"length of {name}"] = int(length[1])
    return found


def _lack(feature: Feature, known: Collection[str], told: Collection[str]) -> str:
    """Why a feature is off; empty if it isn't. What is told and not known, isn't certain enough."""
    lacking = [[name for name in alternative if name not in known] for alternative in feature.fields]
    if not all(lacking):
        return ""
    nearest = min(lacking, key=len)
    reason = f"neither type information nor the offset table has {', '.join(nearest)}"
    if told_only := [name for name in nearest if name in told]:
        reason = f"only the patch releases next to this one tell {', '.join(told_only)}, which isn't certain enough"
    return f"{reason} ({feature.since})" if feature.since else reason


def _pack(layout: Format, known: Mapping[str, int]) -> bytes:
    """Fill a layout; what isn't known becomes GO_UNKNOWN, all ones. Of a member's tags the first known one counts."""
    values: dict[str, Value] = {}
    for field in layout.fields:
        for tag in field.tags:
            name = tag if tag.startswith(_WHOLE_TAGS) else tag.partition(":")[2]
            # An offset that the member can't hold is as good as none.
            if name in known and known[name] < (1 << 8 * field.size) - 1:
                values[field.name] = known[name]
                break
    return layout.pack(values, missing=-1)


def _version(library: Library, executable: Executable) -> str:
    """The version of a library: of its module as it was built, replaced or not; "" where build info has none."""
    info = executable.build_info
    return (
        _module_version(info, library.module, *library.former_modules) if library.module else info.go_version
    )


def _module_version(info: BuildInfo, *paths: str) -> str:
    """The version of the first of these modules that build info has."""
    versions = {
        module.path: (module.replaced_by or module).version
        for module in (info.main, *info.dependencies)
        if module is not None
    }
    return next((versions[path] for path in paths if path in versions), "")


def _program_version(info: BuildInfo) -> str:
    """The version that the program was built as: its module's, else the commit that it was built from."""
    version = info.main.version if info.main is not None else ""
    return version if version not in ("", "(devel)") else info.settings.get("vcs.revision", "")
