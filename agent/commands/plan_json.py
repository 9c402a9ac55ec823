"""A plan for programs: the JSON of `gospan inspect --json`, as docs/inspect.schema.json describes it."""

from __future__ import annotations

from agent.commands.target import Target
from agent.executable import BuildInfo, Module
from agent.plan import LibraryPlan, Off, Plan

Json = dict[str, object]


def as_json(plan: Plan, info: BuildInfo, target: Target) -> Json:
    """Give the whole document."""
    return {
        "path": plan.path,
        "pid": target.pid,
        "deleted": target.deleted,
        "go_version": plan.go_version,
        "arch": plan.arch,
        "package": info.path,
        "module": _module(info.main) if info.main else None,
        "build_id": plan.build_id,
        "sdk": plan.sdk,
        "dependencies": [_module(one) for one in info.dependencies],
        "libraries": [_library(one) for one in plan.libraries],
        "off": _off(plan.off),
    }


def _module(module: Module) -> Json:
    return {
        "path": module.path,
        "version": module.version,
        "sum": module.sum,
        "replaced_by": _module(module.replaced_by) if module.replaced_by else None,
    }


def _library(plan: LibraryPlan) -> Json:
    return {
        "name": plan.library.name,
        "version": plan.version,
        "status": plan.status.value,
        "probes": [
            {
                "symbol": one.symbol,
                "program": one.program,
                "at": one.at,
                "file_offset": one.file_offset,
                "instruction": one.instruction,
                "emulated": one.emulated,
            }
            for one in plan.probes
        ],
        "fields": [
            {"field": one.field, "offset": one.offset, "source": one.source.value} for one in plan.fields
        ],
        "off": _off(plan.off),
    }


def _off(off: tuple[Off, ...]) -> list[Json]:
    return [{"what": one.what, "why": one.why} for one in off]
