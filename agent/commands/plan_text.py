"""A plan for people: what `gospan inspect` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.commands.target import Target
from agent.commands.terminal import Style, Terminal, columns, printable
from agent.executable import BuildInfo, Module
from agent.paths import architecture
from agent.plan import LibraryPlan, Off, Plan, PlannedProbe, Status

_LABEL = 12
"""Width of the labels at the beginning of a line."""
_INDENT = "  "
_FEW_MODULES = 12

_STATUS = {
    Status.ON: ("on", Style.GOOD),
    Status.PARTIAL: ("partly on", Style.MIDDLING),
    Status.OFF: ("off", Style.BAD),
}


def as_text(
    plan: Plan, info: BuildInfo, target: Target, terminal: Terminal, *, all_modules: bool = False
) -> Iterator[str]:
    """Give the lines of the report. Modules are listed where they are few or replaced, or if all are wanted."""
    yield terminal.styled(printable(plan.path), Style.TITLE) + _process(target)
    for label, text in _facts(plan, info):
        yield f"{_INDENT}{label:{_LABEL}}{printable(text)}"
    yield from _modules(info.dependencies, terminal, everyone=all_modules)
    for library in plan.libraries:
        yield ""
        yield from _library(library, terminal)
    if plan.off:
        yield ""
        yield from _off(plan.off, terminal, indent="")


def _process(target: Target) -> str:
    if target.pid is None:
        return ""
    return f"  (process {target.pid}{', which runs a deleted file' if target.deleted else ''})"


def _facts(plan: Plan, info: BuildInfo) -> Iterator[tuple[str, str]]:
    arch = plan.arch if plan.arch == architecture() else f"{plan.arch}; this machine is {architecture()}"
    yield "Go", f"{plan.go_version}, {arch}"
    yield "module", _describe(info.main) if info.main else "not recorded"
    if info.main is None or info.path != info.main.path:
        yield "package", info.path or "not recorded"
    yield "build id", plan.build_id or "none"
    if plan.sdk:
        yield "SDK", f"{plan.sdk}, which makes spans as well"


def _describe(module: Module) -> str:
    text = f"{module.path} {module.version}".rstrip()
    return f"{text} => {_describe(module.replaced_by)}" if module.replaced_by else text


def _modules(modules: Sequence[Module], terminal: Terminal, *, everyone: bool) -> Iterator[str]:
    if not modules:
        return
    listed = [one for one in modules if everyone or len(modules) <= _FEW_MODULES or one.replaced_by]
    count = f"{len(modules)}"
    if len(listed) < len(modules):
        what = f"{len(listed)} replaced" if listed else "none replaced"
        count += terminal.styled(f", {what}; --modules lists all", Style.FAINT)
    yield f"{_INDENT}{'modules':{_LABEL}}{count}"
    margin = _INDENT * 2
    lines = columns((one.path, one.version) for one in listed) if listed else []
    for module, line in zip(listed, lines, strict=True):
        yield f"{margin}{line}"
        if module.replaced_by:
            yield f"{margin}{_INDENT}=> {printable(_describe(module.replaced_by))}"


def _library(plan: LibraryPlan, terminal: Terminal) -> Iterator[str]:
    word, style = _STATUS[plan.status]
    name = terminal.styled(printable(plan.library.name), Style.TITLE)
    yield f"{name}  {printable(plan.version) or 'of unknown version'}  {terminal.styled(word, style)}"
    if plan.probes:
        yield f"{_INDENT}probes"
        yield from _probes(plan.probes, terminal)
    if plan.fields:
        yield f"{_INDENT}fields{terminal.styled('  and their offsets in bytes', Style.FAINT)}"
        rows = [(str(one.offset), one.field, one.source.value) for one in plan.fields]
        for line in columns(rows, right=[0]):
            yield f"{_INDENT}{_INDENT}{line}"
    if plan.off:
        yield from _off(plan.off, terminal, indent=_INDENT)


def _probes(probes: Sequence[PlannedProbe], terminal: Terminal) -> Iterator[str]:
    """One line each where the terminal is wide enough, else two."""
    places = [
        (
            one.program,
            one.at,
            f"{one.file_offset:#x}",
            one.instruction,
            "emulated" if one.emulated else "single-stepped",
        )
        for one in probes
    ]
    symbols = columns((one.symbol,) for one in probes)
    details = columns(places, right=[2])
    width = max(map(len, symbols))
    margin = _INDENT * 2
    if len(margin) + width + 2 + max(map(len, details)) <= terminal.width:
        for symbol, detail in zip(symbols, details, strict=True):
            yield f"{margin}{symbol:{width}}  {detail}"
        return
    for symbol, detail in zip(symbols, details, strict=True):
        yield f"{margin}{symbol}"
        yield f"{margin}{_INDENT}{detail}"


def _off(off: Sequence[Off], terminal: Terminal, *, indent: str) -> Iterator[str]:
    yield f"{indent}{terminal.styled('off', Style.MIDDLING)}"
    margin = indent + _INDENT
    for one in off:
        text = printable(f"{one.what}: {one.why}")
        yield from terminal.wrapped(text, first=margin, indent=len(margin) + len(_INDENT))
