"""How far the making of the table is: a line that is drawn again on a terminal, a line a version elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from agent.offsets.generate import Outcome

_BAR = 24


class Progress:
    """Counts tasks that are done, of `total`."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._total = total
        self._done = 0
        self._started = time.monotonic()
        self._terminal = stream.isatty()

    def report(self, outcome: Outcome) -> None:
        """Show that a task is done. Failures stay on the screen, all else does on no terminal only."""
        self._done += 1
        line = f"[{self._done}/{self._total}] {outcome.task}: {outcome.words}"
        if not self._terminal:
            self._stream.write(line + "\n")
        else:
            if outcome.failed:
                self._stream.write(f"\r\x1b[K{line}\n")
            filled = _BAR * self._done // self._total
            bar = "#" * filled + "." * (_BAR - filled)
            text = f"{bar} {self._done}/{self._total}, {self._left()} left: {outcome.task}"
            self._stream.write("\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1])
            if self._done == self._total:
                self._stream.write("\n")
        self._stream.flush()

    def _left(self) -> str:
        seconds = (time.monotonic() - self._started) / self._done * (self._total - self._done)
        return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
