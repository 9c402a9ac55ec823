"""Numbers in sentences."""

from __future__ import annotations


def counted(count: int, one: str, several: str = "") -> str:
    """Write a number of things: "1 span", "2 spans"; `several` where an s isn't all there is to it."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"
