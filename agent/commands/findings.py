"""What `gospan check` finds: each a sentence for an administrator, and how bad it is.

Functions from what was found out to findings; finding out is check.py's part.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from agent.config import AttachWay, BufferKind, Config, Kernel
from agent.kernel.attach import Backend
from agent.kernel.errors import KernelError
from agent.kernel.features import Features
from agent.libraries import LIBRARIES

MACHINES = ("x86_64", "aarch64")


class Level(enum.IntEnum):
    """How bad a finding is, in rising order."""

    OK = 0
    NOTE = 1
    """Missing, but something else does as well."""
    WARNING = 2
    """Probably not what was meant, or not now; gospan works."""
    LIMIT = 3
    """Something isn't traced, or is at a higher price."""
    FAILURE = 4
    """gospan can't work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `area` is the heading it belongs under, `what` a stable name for programs."""

    area: str
    what: str
    level: Level
    sentence: str


KERNEL = "kernel"
CONFIGURATION = "configuration"
PROGRAMS = "programs"
OFFSETS = "offsets"
COLLECTOR = "collector"

_LACK = {
    "loading": Level.FAILURE,
    "cookies": Level.NOTE,  # a lookup by process does
    "loops": Level.NOTE,  # unrolled loops do
    "run_time_stats": Level.NOTE,  # only status shows them
    "write_user": Level.LIMIT,
    "raw_tracepoints": Level.LIMIT,
    "btf": Level.LIMIT,
    "jit": Level.LIMIT,
    "memory_lock": Level.LIMIT,
}
"""How bad it is that a feature doesn't work. Ways to attach, buffers and process numbers are below."""

_KNOWN_WITHOUT_LOADING = frozenset(("loading", "btf", "memory_lock"))
"""Where no program can be loaded, nothing is known of the other features, and nothing else matters."""

_WAYS = {
    "uprobe_multi": Backend.UPROBE_MULTI,
    "uprobe_perf": Backend.PERF,
    "uprobe_tracefs": Backend.TRACEFS,
}


def worst(findings: Iterable[Finding]) -> Level:
    """Give the level that decides."""
    return max((one.level for one in findings), default=Level.OK)


def of_kernel(found: Features, settings: Kernel, *, lockdown: str) -> Iterator[Finding]:
    """Judge what the kernel and the privileges allow; `lockdown` is the state of the kernel's lockdown, or empty."""
    release = ".".join(map(str, found.release))
    if found.machine not in MACHINES:
        text = f"This machine is {found.machine}; gospan traces on {' and '.join(MACHINES)}."
        yield Finding(KERNEL, "machine", Level.FAILURE, text)
    yield Finding(
        KERNEL,
        "release",
        Level.OK,
        f"Linux {release} on {found.machine}, with libbpf {found.libbpf.removeprefix('v')}.",
    )
    if lockdown:
        yield Finding(KERNEL, "lockdown", Level.NOTE, f"The kernel is locked down ({lockdown}).")
    named = found.named()
    for name, level in _LACK.items():
        if found.loading or name in _KNOWN_WITHOUT_LOADING:
            yield Finding(KERNEL, name, Level.OK if named[name] else level, named[name].sentence)
    if found.loading:
        yield from _attaching(found, settings)
        yield _buffer(found, settings)
        yield _process_numbers(found)
    yield from _capabilities(found)


def _attaching(found: Features, settings: Kernel) -> Iterator[Finding]:
    """Each way to attach, and the one that is chosen: only that none is left is bad."""
    named = found.named()
    for name in _WAYS:
        yield Finding(KERNEL, name, Level.OK if named[name] else Level.NOTE, named[name].sentence)
    forced = None if settings.attach is AttachWay.AUTO else Backend(settings.attach.value)
    try:
        backend = found.backend(forced)
    except KernelError as error:
        yield Finding(KERNEL, "backend", Level.FAILURE, _sentence(str(error)))
        return
    reason = "as configured" if forced else "the best there is here"
    yield Finding(KERNEL, "backend", Level.OK, f"Probes will be attached by {backend.value}, {reason}.")


def _buffer(found: Features, settings: Kernel) -> Finding:
    """How records will come: what is configured, else what there is."""
    name = "buffer"
    size = settings.buffer_size >> 10
    of_size = f"of {size >> 10} MiB" if size % 1024 == 0 else f"of {size} KiB"
    if settings.buffer is BufferKind.PERF:
        text = f"Records will come through perf buffers {of_size} together, as configured."
        return Finding(KERNEL, name, Level.OK, text)
    if found.ring_buffer:
        return Finding(KERNEL, name, Level.OK, f"Records will come through a ring buffer {of_size}.")
    if settings.buffer is BufferKind.RING:
        text = f"kernel.buffer is set to ring, but there is none. {found.ring_buffer.sentence}"
        return Finding(KERNEL, name, Level.FAILURE, text)
    return Finding(KERNEL, name, Level.NOTE, found.ring_buffer.sentence)


def _process_numbers(found: Features) -> Finding:
    name = "pid_namespace"
    if found.pid_namespace.initial:
        return Finding(KERNEL, name, Level.OK, "gospan runs in the initial pid namespace.")
    if found.pid_translation:
        text = "gospan runs in a pid namespace of its own, and sees only the processes in it."
        return Finding(KERNEL, name, Level.NOTE, text)
    return Finding(KERNEL, name, Level.FAILURE, found.pid_translation.sentence)


def _capabilities(found: Features) -> Iterator[Finding]:
    """What is missing, and how bad that is where something else works in its place."""
    instead = {"CAP_DAC_OVERRIDE": bool(found.backends), "CAP_SYS_RESOURCE": bool(found.memory_lock)}
    for one in found.missing:
        level = Level.NOTE if instead.get(one.name) else Level.LIMIT
        yield Finding(KERNEL, one.name, level, f"{one.name} is missing: {one.cost}.")
    if not found.missing:
        yield Finding(KERNEL, "capabilities", Level.OK, "No capability is missing.")


def of_configuration(config: Config) -> Iterator[Finding]:
    """Judge a configuration without errors."""
    sources = sorted({re.sub(r":\d+$", "", place) for place in config.places.values()})
    text = f"set by {', '.join(sources)}" if sources else "all of it defaults"
    yield Finding(CONFIGURATION, "configuration", Level.OK, f"The configuration is valid, {text}.")
    for warning in config.warnings:
        yield Finding(CONFIGURATION, "warning", Level.WARNING, _sentence(warning))
    if not config.discovery.enabled:
        text = f"discovery.enabled is false ({config.place('discovery.enabled')}): nothing will be traced."
        yield Finding(CONFIGURATION, "discovery.enabled", Level.WARNING, text)
    known = [library.name for library in LIBRARIES]
    for setting in ("enabled", "disabled"):
        for name in getattr(config.libraries, setting):
            if name not in known:
                text = f"libraries.{setting} names {name!r}, which is none of {', '.join(known)}."
                yield Finding(CONFIGURATION, f"libraries.{setting}", Level.WARNING, text)


def of_programs(loaded: Collection[str], refused: Iterable[tuple[str, str, str]]) -> Iterator[Finding]:
    """Judge what the kernel said to the BPF programs: names of libraries that were tried, and refusals.

    A refusal is library, program (empty: all of the library) and reason.
    """
    refusals = list(refused)
    for library in loaded:
        reasons = [(program, reason) for name, program, reason in refusals if name == library]
        if not reasons:
            text = f"The kernel takes all programs for {library}."
            yield Finding(PROGRAMS, library, Level.OK, text)
        for program, reason in reasons:
            what = f"the program {program} of {library}" if program else f"the programs for {library}"
            yield Finding(PROGRAMS, library, Level.LIMIT, _sentence(f"The kernel refuses {what}: {reason}"))
    whole = {name for name, program, _ in refusals if not program}
    if loaded and whole >= set(loaded):
        yield Finding(PROGRAMS, "libraries", Level.FAILURE, "No library is left that could be traced.")


def _sentence(text: str) -> str:
    """Begin with a capital and end with a full stop, unless a name stands there."""
    first, _, _ = text.partition(" ")
    if first.isalpha() and first.islower() and first != "gospan":
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
