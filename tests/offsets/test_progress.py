from __future__ import annotations

import io

from agent.offsets.generate import Outcome, Task
from agent.offsets.programs import PROGRAMS
from agent.offsets.progress import Progress

DONE = Outcome(Task(PROGRAMS[0], "1.27.4", "amd64"), "go1.27.4: 1126 structs")
FAILED = Outcome(Task(PROGRAMS[0], "1.27.3", "amd64"), "no route to host", failed=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_a_version_where_nobody_watches() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 2)
    progress.report(DONE)
    progress.report(FAILED)
    assert stream.getvalue() == (
        "[1/2] std 1.27.4 amd64: go1.27.4: 1126 structs\n[2/2] std 1.27.3 amd64: no route to host\n"
    )


def test_a_line_that_is_drawn_again_on_a_terminal() -> None:
    stream = Terminal()
    progress = Progress(stream, 4)
    progress.report(DONE)
    assert stream.getvalue() == "\r\x1b[K######.................. 1/4, 0 s left: std 1.27.4 amd64"


def test_failures_stay_on_the_screen() -> None:
    stream = Terminal()
    Progress(stream, 1).report(FAILED)
    assert stream.getvalue() == (
        "\r\x1b[K[1/1] std 1.27.3 amd64: no route to host\n"
        "\r\x1b[K######################## 1/1, 0 s left: std 1.27.3 amd64\n"
    )
