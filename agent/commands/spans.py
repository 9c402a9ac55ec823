"""Show the spans that the running agent keeps in memory, one a line, or with -f those that come.

Texts are globs, as in the shell: * and ? and [ab].
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator

from rich.text import Text

from agent.commands import EXIT_OK, EXIT_USAGE, CommandError, asking
from agent.commands.screen import BAD, FAINT, GOOD, MIDDLING, SERVICE, TITLE, console, text
from agent.config.values import duration
from agent.spans.sinks import duration_text
from agent.status.client import Agent, Missed
from agent.status.shown import KINDS, STATUSES, Filter, ShownSpan

SLOW = 1_000_000_000
"""From how many ns on a duration stands out."""

_DURATION = duration(at_most=86400)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    asking.add_arguments(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with the spans that come")
    parser.add_argument(
        "-n",
        "--lines",
        metavar="COUNT",
        type=int,
        help="begin with the last COUNT of the wanted spans that are kept; default: with all, with -f with none",
    )
    parser.add_argument("-w", "--wide", action="store_true", help="don't cut lines to the terminal's width")
    group = parser.add_argument_group("which spans")
    group.add_argument("--service", metavar="GLOB", help="of services with such a name")
    group.add_argument("--name", metavar="GLOB", help="with such a name, as 'GET /users/*'")
    group.add_argument("--kind", choices=KINDS, help="of this kind")
    group.add_argument("--status", choices=STATUSES, help="with this status")
    group.add_argument(
        "--min-duration", metavar="TIME", default="0", help="that took at least 250ms, 2s, ..."
    )
    group.add_argument("--trace", metavar="ID", default="", help="of the trace whose id begins with this")
    group.add_argument(
        "--attribute",
        metavar="KEY=GLOB",
        action="append",
        default=[],
        help="with such an attribute; may be given several times",
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask and show."""
    wanted = _filter(arguments)
    screen = console()
    with asking.asked(arguments) as agent:
        for span in _spans(agent, wanted, arguments.lines, follow=arguments.follow):
            if isinstance(span, Missed):
                sys.stderr.write(f"gospan: {span.count} spans came faster than they could be shown\n")
            elif arguments.json:
                sys.stdout.write(json.dumps(span.as_json(), ensure_ascii=False) + "\n")
            elif arguments.wide:
                screen.print(line(span), soft_wrap=True)
            else:
                screen.print(line(span), no_wrap=True, overflow="ellipsis")
            if arguments.follow:
                sys.stdout.flush()
    return EXIT_OK


def _spans(agent: Agent, wanted: Filter, last: int | None, *, follow: bool) -> Iterator[ShownSpan | Missed]:
    """Give the wanted spans that are kept, or the last so many of them, and with `follow` those to come."""
    if last is None:
        came = agent.spans(0 if follow else None, follow=follow)
    else:
        kept = [span for span in agent.spans() if not isinstance(span, Missed)]
        found = [shown for shown in map(ShownSpan.of, kept) if wanted.matches(shown)]
        yield from found[max(0, len(found) - last) :]
        if not follow:
            return
        came = agent.spans(since=kept[-1].number + 1 if kept else 0, follow=True)
    for span in came:
        if isinstance(span, Missed):
            yield span
        elif wanted.matches(shown := ShownSpan.of(span)):
            yield shown


def _filter(arguments: argparse.Namespace) -> Filter:
    pairs = []
    for given in arguments.attribute:
        key, equals, glob = given.partition("=")
        if not equals:
            raise CommandError(f"--attribute wants key=glob, not {given!r}", status=EXIT_USAGE)
        pairs.append((key, glob))
    try:
        least = parse_duration(arguments.min_duration)
    except ValueError as error:
        raise CommandError(f"--min-duration {error}", status=EXIT_USAGE) from None
    if not re.fullmatch("[0-9a-f]{0,32}", arguments.trace.lower()):
        raise CommandError("--trace wants the beginning of a trace id in hexadecimal", status=EXIT_USAGE)
    if arguments.lines is not None and arguments.lines < 0:
        raise CommandError("--lines wants a number of spans", status=EXIT_USAGE)
    return Filter(
        service=arguments.service,
        name=arguments.name,
        kind=arguments.kind,
        status=arguments.status,
        min_duration=least,
        trace=arguments.trace.lower(),
        attributes=tuple(pairs),
    )


def parse_duration(given: str) -> int:
    """Read a time such as 250ms and give it in ns. Raises ValueError."""
    if _DURATION.from_text is None:
        raise ValueError("can't be read")
    return round(_DURATION.from_text(given) * 1e9)


def line(span: ShownSpan) -> Text:
    """Write a span in one line: when it began, of which service, what, how long, and what there is to say of it."""
    clock = time.strftime("%H:%M:%S", time.localtime(span.start // 1_000_000_000))
    made = text(f"{clock}.{span.start // 1_000_000 % 1000:03d} ", FAINT)
    made.append_text(text(f"{span.service} ", SERVICE))
    made.append_text(text(f"{span.kind} ", FAINT))
    made.append_text(text(span.name, BAD if span.failed else GOOD if span.status == "ok" else TITLE))
    made.append_text(text(f" {duration_text(span.duration)}", MIDDLING if span.duration >= SLOW else ""))
    if span.failed:
        made.append_text(text(f" error{': ' if span.message else ''}{span.message}", BAD))
    for key, value in span.attributes.items():
        made.append_text(text(f" {key}=", FAINT)).append_text(text(value))
    return made.append_text(text(f" trace={span.trace_id} span={span.span_id}", FAINT))
