"""Draw a trace as a waterfall, from the spans that the running agent keeps in memory.

The beginning of an id will do, where only one trace begins so.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time

from rich.text import Text

from agent.commands import EXIT_OK, EXIT_USAGE, CommandError, asking
from agent.commands.screen import BAD, FAINT, SERVICE, TITLE, console, draw, table, text
from agent.spans.sinks import duration_text
from agent.status.client import Missed
from agent.status.shown import ShownSpan
from agent.status.trace import Node, tree
from agent.wording import counted

_LISTED = 10
_PIPE_BAR = 40
_LEAST_BAR = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    asking.add_arguments(parser)
    parser.add_argument("trace", metavar="ID", help="the trace's id in hexadecimal, or its beginning")


def run(arguments: argparse.Namespace) -> int:
    """Ask and draw."""
    prefix = arguments.trace.lower()
    if not re.fullmatch("[0-9a-f]{1,32}", prefix):
        raise CommandError(
            "a trace id is 32 hexadecimal digits, of which the first few will do", status=EXIT_USAGE
        )
    with asking.asked(arguments) as agent:
        kept = [ShownSpan.of(span) for span in agent.spans() if not isinstance(span, Missed)]
    nodes = tree(_chosen(kept, prefix))
    if arguments.json:
        found = [node.span.as_json() | {"depth": node.depth, "parent_missing": node.orphan} for node in nodes]
        sys.stdout.write(json.dumps({"trace_id": nodes[0].span.trace_id, "spans": found}, indent=2) + "\n")
    else:
        _draw(nodes)
    return EXIT_OK


def _chosen(kept: list[ShownSpan], prefix: str) -> list[ShownSpan]:
    """Give the spans of the one trace that is meant. Raises CommandError."""
    found = [span for span in kept if span.trace_id.startswith(prefix)]
    ids = list(dict.fromkeys(span.trace_id for span in found))
    if not ids:
        since = (
            time.strftime("%H:%M:%S", time.localtime(min(span.start for span in kept) / 1e9)) if kept else ""
        )
        some = f"the last {len(kept)} are, since {since}" if kept else "none are"
        raise CommandError(f"no span of a trace {prefix} is kept; {some} (status.recent_spans)")
    if len(ids) > 1:
        more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
        raise CommandError(f"{len(ids)} traces begin with {prefix}: {', '.join(ids[:_LISTED])}{more}")
    return found


def _draw(nodes: list[Node]) -> None:
    screen = console()
    spans = [node.span for node in nodes]
    begin, end = min(span.start for span in spans), max(span.end for span in spans)
    services = len({(span.service, span.pid) for span in spans})
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begin / 1e9))
    head = text(f"trace {spans[0].trace_id}", TITLE)
    head.append(
        f"  {counted(len(spans), 'span')} of {counted(services, 'process', 'processes')}, "
        f"{duration_text(end - begin)}, {clock}",
        FAINT,
    )
    labels = [_label(node) for node in nodes]
    widest = max(max(label.cell_len for label in labels), len("SPAN"))
    if screen.is_terminal:
        widest = min(widest, max(20, screen.width // 2))
        bar = max(_LEAST_BAR, screen.width - widest - 2 - 2 - 2 - 8)
    else:
        bar = _PIPE_BAR
    drawn = table("SPAN", "", "TOOK", right=(2,))
    drawn.columns[0].width = widest
    block = "\u2588" if "utf" in (screen.encoding or "").lower() else "#"
    for node, label in zip(nodes, labels, strict=True):
        span = node.span
        took = text(duration_text(span.duration), BAD if span.failed else "")
        drawn.add_row(label, _bar(span, begin, end, bar, block), took)
    draw(screen, head, drawn)


def _label(node: Node) -> Text:
    span = node.span
    made = text("  " * node.depth)
    if node.orphan:
        made.append("\u2026 ", FAINT)  # its parent was in another process that isn't traced here, or is gone
    made.append_text(text(f"{span.service} ", SERVICE))
    made.append_text(text(span.name, BAD if span.failed else TITLE))
    made.append_text(text(f" {span.kind}", FAINT))
    if came := _came(span):
        made.append_text(text(f" {came}", BAD if span.failed else FAINT))
    return made


def _came(span: ShownSpan) -> str:
    """What came of it in a word: the status by HTTP or RPC, else of what failed how."""
    for key in ("http.response.status_code", "rpc.response.status_code", "rpc.grpc.status_code"):
        if key in span.attributes:
            return str(span.attributes[key])
    return str(span.attributes.get("error.type", "error")) if span.failed else ""


def _bar(span: ShownSpan, begin: int, end: int, width: int, block: str) -> Text:
    """Draw where in the trace a span lies: at least one block."""
    whole = max(1, end - begin)
    left = min(width - 1, (span.start - begin) * width // whole)
    length = max(1, min(width - left, -(-span.duration * width // whole)))
    return Text(" " * left + block * length + " " * (width - left - length), BAD if span.failed else "blue")
