"""Drawing for the commands that ask the running agent, by rich. Nothing else imports it: the agent stays small."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.commands.terminal import printable

_PIPE_WIDTH = 10_000
"""Columns where the output is no terminal: nothing is cut."""

_LEAST = 8
"""Columns that a text is never cut below."""

FAINT, TITLE, GOOD, MIDDLING, BAD = "dim", "bold", "green", "yellow", "red"
SERVICE = "cyan"


def console(stream: TextIO | None = None) -> Console:
    """Give what to draw on. A terminal's width is respected, and so is NO_COLOR; a pipe gets plain text."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(
        file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=not stream.isatty()
    )


def text(content: object, style: str = "") -> Text:
    """Make text of whatever a traced program may have chosen: nothing in it controls the terminal.

    The style is that of these words alone: what is appended has its own.
    """
    return Text().append(printable(str(content)), style=style)


def table(*columns: str, right: Iterable[int] = ()) -> Table:
    """Make a table without lines."""
    made = Table(box=None, pad_edge=False, header_style=TITLE, show_edge=False, padding=(0, 2, 0, 0))
    numbers = frozenset(right)
    for number, name in enumerate(columns):
        made.add_column(
            name, justify="right" if number in numbers else "left", no_wrap=True, overflow="ellipsis"
        )
    return made


def fitted(made: Table, on: Console, *elastic: int) -> Table:
    """Cut the elastic columns of a filled table so that all fit a terminal's width; the others stay whole."""
    if not on.is_terminal:
        return made
    natural = [
        max([cell_len(str(column.header)), *(cell_len(str(cell)) for cell in column.cells)])
        for column in made.columns
    ]
    # Two blanks between columns, and rich counts those behind the last one, too.
    room = on.width - sum(width + 2 for number, width in enumerate(natural) if number not in elastic)
    left = list(elastic)
    for number in sorted(elastic, key=lambda number: natural[number]):
        share = max(_LEAST, room // len(left) - 2)
        made.columns[number].width = min(natural[number], share)
        room -= min(natural[number], share) + 2
        left.remove(number)
    return made


def draw(on: Console, *parts: Table | Text) -> None:
    """Write parts one below the other, without blanks at the lines' ends where nobody sees them."""
    for part in parts:
        if on.is_terminal or isinstance(part, Text):
            on.print(part)
            continue
        with on.capture() as captured:
            on.print(part)
        on.file.writelines(line.rstrip() + "\n" for line in captured.get().splitlines())


def facts(rows: Iterable[Sequence[str | Text]]) -> Table:
    """Make a table of a label and what there is to say of it; the latter may take several lines."""
    made = Table(box=None, pad_edge=False, show_header=False, show_edge=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for label, content in rows:
        made.add_row(label, content if isinstance(content, Text) else text(content))
    return made
