"""Text for people: colours on a terminal only, columns that line up, and nothing that controls the terminal.

What is shown comes from files and processes that anybody may have made, so every text goes through `printable`.
"""

from __future__ import annotations

import enum
import os
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

_WIDTH = 100
_NARROWEST, _WIDEST = 60, 160


class Style(enum.Enum):
    """How a text stands out. The value is the terminal's code (ECMA-48, SGR)."""

    TITLE = "1"
    FAINT = "2"
    GOOD = "32"
    MIDDLING = "33"
    BAD = "31"


@dataclass(frozen=True, slots=True)
class Terminal:
    """What the output goes to: its width in columns, and whether it shows colours."""

    width: int = _WIDTH
    colours: bool = False

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str] = os.environ) -> Terminal:
        """Find out about a stream. NO_COLOR (no-color.org) is respected; what is no terminal has 100 columns."""
        is_terminal = stream.isatty()
        width = shutil.get_terminal_size((_WIDTH, 24)).columns if is_terminal else _WIDTH
        colours = is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        return cls(max(_NARROWEST, min(width, _WIDEST)), colours)

    def styled(self, text: str, style: Style) -> str:
        """Make a text stand out, where colours are shown."""
        return f"\x1b[{style.value}m{text}\x1b[0m" if self.colours and text else text

    def wrapped(self, text: str, *, indent: int, first: str = "") -> list[str]:
        """Break a text into lines; `first` stands before the first one, `indent` blanks before the others."""
        lines = textwrap.wrap(
            text,
            self.width,
            initial_indent=first,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return lines or [first.rstrip()]


def printable(text: str) -> str:
    """Write control characters, and bytes that are no UTF-8, as escapes: they could redraw the terminal."""
    return (
        text
        if text.isprintable()
        else "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    )


def columns(rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Line up rows, two blanks between columns; those in `right` end at the same place instead of beginning there."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numbers = frozenset(right)
    return [
        "  ".join(
            cell.rjust(width) if number in numbers else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
