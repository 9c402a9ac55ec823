"""Say what the running agent does: how much is traced, what is off and why, what was lost, where spans go."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator

from rich.text import Text

from agent.commands import EXIT_OK, asking
from agent.commands.screen import BAD, FAINT, GOOD, MIDDLING, TITLE, console, draw, facts, text
from agent.status.protocol import Json
from agent.wording import counted

add_arguments = asking.add_arguments

_LOSSES = {
    "buffer_full": "the event buffer was full: kernel.buffer_size",
    "evicted": "more were in flight than kernel.max_in_flight",
    "abandoned": "their end was not seen",
    "too_deep": "too many open spans on one goroutine",
    "unreadable": "the agent could not read their records",
    "process_unknown": "their process was not known",
    "queue_full": "the queue to the collector was full: export.queue_size",
    "rejected": "the collector rejected them",
    "gave_up": "the collector did not take them in time: export.give_up_after",
    "shutdown": "the agent was stopped",
}

_SKIPPED = {
    "own_header": "the program sends its own",
    "no_room": "no room in the connection's buffer",
    "shared_header": "several requests at a time share one header map",
    "unknown_request": "no span of a client was known for the request",
    "compressed": "messages of a batch that is compressed",
    "write_failed": "the buffer could not be written to",
}


def run(arguments: argparse.Namespace) -> int:
    """Ask and show."""
    with asking.asked(arguments) as agent:
        report = agent.report()
    if arguments.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return EXIT_OK
    screen = console()
    title = text(f"gospan {report['version']}", TITLE)
    title.append(f"  process {report['pid']}, running for {ago(report['time'] - report['started'])}", FAINT)
    draw(screen, title, facts(_facts(report)))
    off = list(_off(report))
    if off:
        draw(screen, Text(), text("not traced", TITLE))
        for what, why in off:
            draw(screen, text(f"{what}: {why}"))
    return EXIT_OK


def ago(seconds: float) -> str:
    """Write how long something takes or is ago, roughly."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _facts(report: Json) -> Iterator[tuple[str, str | Text]]:
    processes, executables = report["processes"], report["executables"]
    yield (
        "tracing",
        f"{counted(len(processes), 'process', 'processes')} of {counted(len(executables), 'executable')}",
    )
    spans = report["spans"]
    yield (
        "spans",
        f"{spans['per_second']:g} a second, {spans['made']} since the start, {spans['kept']} kept here",
    )
    for export in report["export"]:
        yield "export", _export(export, report["time"])
    yield "lost", _lost(report)
    kernel = report["kernel"]
    yield "kernel", f"Linux {kernel['release']}, probes by {kernel['attach']}, {kernel['buffer']} buffer"
    yield "propagation", _propagation(report)
    sdk = [executable for executable in executables if executable["sdk"]]
    if sdk:
        yield "SDK", _sdk(sdk)
    yield "offsets", _offsets(report["offsets"])
    yield "configuration", _reload(report)


def _export(export: Json, now: float) -> Text:
    counts = f"{export['sent']} sent, {export['held']} waiting"
    said = text(f"to {export['destination']}: {counts}", GOOD)
    if export["failing_since"] is not None:
        said = text(f"failing for {ago(now - export['failing_since'])}: {export['last_error']}", BAD)
        said.append(f"; to {export['destination']}: {counts}")
    elif export["last_error"]:
        said.append(f"; last error: {export['last_error']}", FAINT)
    return said


def _lost(report: Json) -> Text:
    lost: Counter[str] = Counter(report["lost"])
    for export in report["export"]:
        lost.update(export["dropped"])
    if not lost:
        return text("nothing", GOOD)
    words = (
        f"{count} ({reason}: {_LOSSES[reason]})" if reason in _LOSSES else f"{count} ({reason})"
        for reason, count in lost.items()
    )
    return text("; ".join(words), BAD)


def _propagation(report: Json) -> Text:
    propagation = report["propagation"]
    said = text(
        propagation["sentence"], "" if report["kernel"]["features"]["write_user"]["works"] else MIDDLING
    )
    said.append(f" {propagation['written']} written, {propagation['joined']} joined")
    skipped = [f"{count} not ({_SKIPPED.get(why, why)})" for why, count in propagation["skipped"].items()]
    if skipped:
        said.append(f"; {', '.join(skipped)}", MIDDLING)
    return said


def _sdk(executables: list[Json]) -> Text:
    """Tell of programs that make spans of their own."""
    return text(
        "OpenTelemetry's own makes spans as well, so that some things have two, in "
        + ", ".join(f"{one['path']} ({one['sdk']})" for one in executables),
        MIDDLING,
    )


def _offsets(offsets: Json) -> Text:
    if offsets["problem"]:
        return text(offsets["problem"], MIDDLING)
    return text(
        f"{offsets['path']} of {str(offsets['generated'])[:10]}, {ago(offsets['age_days'] * 86400)} old"
    )


def _reload(report: Json) -> Text:
    reload = report["reload"]
    if reload is None:
        return text("as read at the start")
    when = f"{ago(report['time'] - reload['at'])} ago"
    if reload["problems"]:
        return text(f"unchanged: reload failed {when}: {'; '.join(reload['problems'])}", BAD)
    said = text(f"read again {when}: {', '.join(reload['applied']) or 'nothing'} changed")
    if reload["postponed"]:
        said.append(f"; {', '.join(reload['postponed'])} after a restart", MIDDLING)
    return said


def _off(report: Json) -> Iterator[tuple[str, str]]:
    """Give what is off and why: of this kernel, of files, of processes."""
    for refused in report["kernel"]["refused"]:
        what = f"{refused['library']} {refused['program']}".rstrip()
        yield what, f"this kernel refuses it: {str(refused['reason']).splitlines()[0]}"
    for executable in report["executables"]:
        for one in executable["off"]:
            yield f"{executable['path']}: {one['what']}", one["why"]
        for library in executable["libraries"]:
            for one in library["off"]:
                yield f"{executable['path']}: {library['name']}: {one['what']}", one["why"]
    same: dict[tuple[str, str], list[int]] = {}
    for process in report["not_traced"]:
        same.setdefault((process["path"], process["why"]), []).append(process["pid"])
    for (path, why), pids in same.items():
        whose = f"process {pids[0]}" if len(pids) == 1 else f"{len(pids)} processes"
        yield f"{path} ({whose})", why
