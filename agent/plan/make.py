"""Making the plan of an executable."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from agent.executable import BuildInfo, Executable, Function
from agent.kernel.btf import Btf
from agent.kernel.formats import Format, Value, format_of
from agent.libraries import LIBRARIES, Feature, Library
from agent.offsets.resolve import Resolution, Resolver, Source
from agent.plan.addresses import addresses_of
from agent.plan.model import LibraryPlan, Off, Plan, PlannedField, PlannedProbe, Status
from agent.plan.places import places_of
from agent.plan.tags import (
    ADDRESS_TAG,
    EXACT_TAG,
    FIELD_TAG,
    LAYOUT_SUFFIX,
    MAP_TAG,
    TYPE_TAG,
    WHOLE_TAGS,
    tags_of,
)

SDK = "go.opentelemetry.io/otel/sdk"
"""The module of OpenTelemetry's own SDK for Go."""

_SDK_FUNCTION = f"{SDK}/trace.(*TracerProvider).Tracer"
"""What every program has that makes spans by the SDK: the provider is an interface's."""

_RUNTIME = Feature(what="goroutines", fields=(("runtime.g.goid",),), required=True)


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
            for prefix in (FIELD_TAG, EXACT_TAG)
            for tag in tags_of(formats.values(), prefix)
        }
        | {field for one in present if one.substitute for field in one.substitute.fields},
        maps={
            tag.partition(":")[0]
            for formats in layouts.values()
            for tag in tags_of(formats.values(), MAP_TAG)
        },
        types={tag for formats in layouts.values() for tag in tags_of(formats.values(), TYPE_TAG)},
    )
    addresses = addresses_of(
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
        places, reason = places_of(probe, executable, functions)
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


def _fields(layouts: Iterable[Format], resolution: Resolution) -> set[PlannedField]:
    fields: set[PlannedField] = set()
    parts = tags_of(layouts, MAP_TAG)
    for name in tags_of(layouts, FIELD_TAG) | parts:
        if name in resolution.offsets:
            fields.add(PlannedField(name, *resolution.offsets[name]))
    for name in tags_of(layouts, TYPE_TAG):
        if name in resolution.types:
            fields.add(PlannedField(name, resolution.types[name], Source.TYPE_INFORMATION))
    for name in tags_of(layouts, EXACT_TAG):
        if resolution.writable(name) is not None:
            fields.add(PlannedField(name, *resolution.offsets[name]))
    for name in parts:
        map_type, _, member = name.partition(":")
        if map_type in resolution.maps:
            geometry = getattr(resolution.maps[map_type], member)
            fields.add(PlannedField(name, geometry, Source.TYPE_INFORMATION))
    return fields


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
            name = tag if tag.startswith(WHOLE_TAGS) else tag.partition(":")[2]
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
