"""Programs in files of their own, which no agent has seen before, and requests to them."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.http import Server, send


def copy_of(file: Path | str, to: Path) -> Path:
    shutil.copy(file, to)
    return to


def request(server: Server, count: int = 10) -> int:
    """Send requests that all have a span; give how many."""
    for line in send(server, "http1", "-target", "/do", "-connections", "2", requests=count):
        raise AssertionError(line)  # with -target it writes no lines
    return count
