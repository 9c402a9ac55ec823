"""List the Go processes that the running agent knows, or tell everything about one.

Errors are counted among the spans that are kept in memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable

from rich.text import Text

from agent.commands import EXIT_OK, CommandError, asking
from agent.commands.screen import BAD, FAINT, MIDDLING, TITLE, console, draw, facts, fitted, table, text
from agent.commands.target import open_target
from agent.executable import Executable, ExecutableError, NotGoError
from agent.status.client import Agent, Missed
from agent.status.protocol import Json
from agent.status.shown import ShownSpan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    asking.add_arguments(parser)
    parser.add_argument("pid", metavar="PID", nargs="?", type=int, help="tell everything about this process")


def run(arguments: argparse.Namespace) -> int:
    """Ask and show."""
    with asking.asked(arguments) as agent:
        report = agent.report()
        kept = _kept(agent)
    rows = processes(report, kept)
    if arguments.pid is not None:
        rows = [row for row in rows if row["pid"] == arguments.pid] or [_unknown(arguments.pid)]
    if arguments.json:
        what: object = rows[0] if arguments.pid is not None else {"processes": rows}
        sys.stdout.write(json.dumps(what, indent=2) + "\n")
    elif arguments.pid is not None:
        _detail(rows[0])
    else:
        _list(rows)
    return EXIT_OK


def _kept(agent: Agent) -> list[ShownSpan]:
    return [ShownSpan.of(span) for span in agent.spans() if not isinstance(span, Missed)]


def processes(report: Json, kept: Iterable[ShownSpan]) -> list[Json]:
    """Give what is known of each Go process, by its number: those that are traced, and why the others aren't."""
    spans, errors = Counter[int](), Counter[int]()
    for span in kept:
        spans[span.pid] += 1
        errors[span.pid] += span.failed
    found = []
    for process in report["processes"]:
        executable = report["executables"][process["executable"]]
        pid = process["pid"]
        found.append(
            {
                "pid": pid,
                "traced": True,
                "why": "",
                "service": process["service"],
                "path": executable["path"],
                "go": executable["go"],
                "version": executable["version"],
                "sdk": executable["sdk"],
                "libraries": executable["libraries"],
                "on": process["libraries"],
                "off": [*process["off"], *executable["off"], *_parts_off(executable, process["libraries"])],
                "sampler": process["sampler"],
                "spans": process["spans"],
                "per_second": process["per_second"],
                "kept": {"spans": spans[pid], "errors": errors[pid]},
            }
        )
    found += [
        {"pid": one["pid"], "traced": False, "why": one["why"], "path": one["path"]}
        for one in report["not_traced"]
    ]
    return sorted(found, key=lambda row: int(row["pid"]))


def _parts_off(executable: Json, on: list[str]) -> list[Json]:
    return [
        {"what": f"{library['name']}: {one['what']}", "why": one["why"]}
        for library in executable["libraries"]
        if library["name"] in on
        for one in library["off"]
    ] + [
        {"what": library["name"], "why": "; ".join(f"{one['what']}: {one['why']}" for one in library["off"])}
        for library in executable["libraries"]
        if library["status"] == "off"
    ]


def _unknown(pid: int) -> Json:
    """Find out why the agent doesn't know a process. Raises CommandError where there is none, or it isn't Go."""
    with open_target(str(pid)) as target:
        try:
            Executable(target.path, fd=target.fd).close()
        except NotGoError:
            raise CommandError(f"process {pid} runs {target.path}, which is not a Go program") from None
        except ExecutableError as error:
            why = str(error)
        else:
            why = "the agent has not looked at it yet; it does so within discovery.scan_interval"
        return {"pid": pid, "traced": False, "why": why, "path": target.path}


def _list(rows: list[Json]) -> None:
    screen = console()
    if not rows:
        draw(screen, text("no Go process runs here"))
        return
    listed = table("PID", "SERVICE", "SPANS/S", "ERRORS", "GO", "EXECUTABLE", "TRACED", right=(0, 2, 3))
    for row in rows:
        if not row["traced"]:
            why = text(f"no: {row['why']}", MIDDLING)
            listed.add_row(str(row["pid"]), "", "", "", "", text(row["path"], FAINT), why)
            continue
        traced = text(", ".join(row["on"]))
        if row["off"]:
            traced.append(f"  {len(row['off'])} off", MIDDLING)
        errors = row["kept"]["errors"]
        listed.add_row(
            str(row["pid"]),
            text(row["service"], TITLE),
            f"{row['per_second']:g}",
            Text(str(errors), BAD if errors else ""),
            text(row["go"].removeprefix("go")),
            text(row["path"]),
            traced,
        )
    draw(screen, fitted(listed, screen, 1, 5, 6))


def _detail(row: Json) -> None:
    screen = console()
    head = text(f"process {row['pid']}", TITLE)
    if not row["traced"]:
        draw(screen, head, facts([("executable", row["path"]), ("not traced", text(row["why"], MIDDLING))]))
        return
    sampler, kept = row["sampler"], row["kept"]
    ratio = f" ({sampler['arg']:g})" if "ratio" in sampler["name"] else ""
    lines: list[tuple[str, str | Text]] = [
        ("service", row["service"]),
        ("executable", f"{row['path']}  {row['version']}".rstrip()),
        ("Go", row["go"]),
        ("sampler", f"{sampler['name']}{ratio}"),
        ("spans", f"{row['per_second']:g} a second, {row['spans']} in all"),
        ("kept here", f"{kept['spans']}, {kept['errors']} of them errors"),
    ]
    for library in row["libraries"]:
        state = library["status"] if library["name"] in row["on"] else "off"
        said = text(f"{library['name']}  {library['version'] or 'of unknown version'}  ")
        said.append(state, MIDDLING if state != "on" else "green")
        lines.append(("library", said))
    if row["sdk"]:
        lines.append(("SDK", text(f"{row['sdk']}, which makes spans as well", MIDDLING)))
    lines += [("off", text(f"{one['what']}: {one['why']}", MIDDLING)) for one in row["off"]]
    draw(screen, head, facts(lines))
