"""Numbers and lists in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def listing(words: Sequence[str]) -> str:
    """Give `a`, `a and b`, or `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def counted(count: int, one: str, several: str = "") -> str:
    """Write a number of things: "1 span", "2 spans"; `several` where an s isn't all there is to it."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"
