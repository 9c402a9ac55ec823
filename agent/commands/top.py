"""Show rate, errors and durations by service and operation, of the spans that the running agent makes now.

On a terminal the table stays and changes; ctrl-C ends it. Elsewhere it is printed anew each time.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from agent.commands import EXIT_OK, EXIT_USAGE, CommandError, asking
from agent.commands.screen import BAD, FAINT, SERVICE, TITLE, console, draw, fitted, table, text
from agent.commands.spans import parse_duration
from agent.spans.sinks import duration_text
from agent.status.client import Agent, AskError, Missed
from agent.status.operations import Operation, Window
from agent.status.shown import ShownSpan

_BACKLOG = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    asking.add_arguments(parser)
    parser.add_argument("--interval", metavar="TIME", default="1s", help="how often it is drawn; default: 1s")
    parser.add_argument(
        "--window", metavar="TIME", default="1m", help="over how long it sums up; default: 1m"
    )
    parser.add_argument(
        "-n", "--count", metavar="COUNT", type=int, default=0, help="end after so many times; default: never"
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask and show, again and again."""
    interval, window = (_time(arguments, name) / 1e9 for name in ("interval", "window"))
    looking = Looking(Window(window))
    screen = console()
    with asking.asked(arguments) as agent:
        looking.begin(agent)
        stays = screen.is_terminal and not arguments.json
        live = Live(console=screen, screen=True, auto_refresh=False) if stays else None
        if live is not None:
            live.start()
        try:
            shown = 0
            while not arguments.count or shown < arguments.count:
                looking.take(interval)
                _show(looking, screen, live, as_json=arguments.json)
                shown += 1
        finally:
            if live is not None:
                live.stop()
    return EXIT_OK


def _time(arguments: argparse.Namespace, name: str) -> int:
    try:
        found = parse_duration(getattr(arguments, name))
    except ValueError as error:
        raise CommandError(f"--{name} {error}", status=EXIT_USAGE) from None
    if found < 100_000_000:
        raise CommandError(f"--{name} wants at least 100ms", status=EXIT_USAGE)
    return found


class Looking:
    """Reads spans in a thread, for the agent sends them when it has some."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.missed = 0
        self.since = time.time_ns()
        self._waiting: queue.Queue[ShownSpan | Missed | AskError] = queue.Queue(_BACKLOG)

    def begin(self, agent: Agent) -> None:
        """Begin to read: first what is kept."""
        threading.Thread(target=self._read, args=(agent,), daemon=True).start()

    def _read(self, agent: Agent) -> None:
        try:
            for span in agent.spans(follow=True):
                self._waiting.put(span if isinstance(span, Missed) else ShownSpan.of(span))
        except AskError as error:
            self._waiting.put(error)

    def take(self, seconds: float) -> None:
        """Take what comes in so many seconds. Raises AskError."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                found = self._waiting.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(found, AskError):
                raise found
            if isinstance(found, Missed):
                self.missed += found.count
            else:
                self.window.add(found)


def _show(looking: Looking, screen: Console, live: Live | None, *, as_json: bool) -> None:
    now = time.time_ns()
    operations = looking.window.operations(now, looking.since)
    if as_json:
        found = {
            "time": now / 1e9,
            "missed": looking.missed,
            "operations": [one.as_json() for one in operations],
        }
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        return
    clock = time.strftime("%H:%M:%S")
    errors = sum(one.errors for one in operations)
    rate = sum(one.per_second for one in operations)
    head = text(f"{clock}  {rate:.1f} spans a second, {errors} errors", TITLE)
    if looking.missed:
        head.append(f"  {looking.missed} spans came faster than they could be read", BAD)
    if live is None:
        draw(screen, head, _table(operations, screen), text(""))
        screen.file.flush()
        return
    room = max(1, screen.height - 3)
    below = text(f"and {len(operations) - room} more", FAINT) if len(operations) > room else text("")
    live.update(Group(head, _table(operations[:room], screen), below), refresh=True)


def _table(operations: list[Operation], screen: Console) -> Table:
    made = table(
        "SERVICE",
        "OPERATION",
        "KIND",
        "RATE/S",
        "SPANS",
        "ERRORS",
        "P50",
        "P95",
        "MAX",
        right=range(3, 9),
    )
    for one in operations:
        share = f"{one.errors} ({100 * one.errors / one.spans:.0f}%)" if one.errors else "0"
        made.add_row(
            text(one.service, SERVICE),
            text(one.name),
            text(one.kind, FAINT),
            f"{one.per_second:.1f}",
            str(one.spans),
            text(share, BAD if one.errors else ""),
            *(duration_text(value) for value in (one.p50, one.p95, one.longest)),
        )
    return fitted(made, screen, 0, 1)
