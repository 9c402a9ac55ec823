from __future__ import annotations

import io
import os
import pty

from agent.commands.terminal import Style, Terminal, columns, printable


def test_printable_leaves_text_and_escapes_the_rest() -> None:
    assert printable("net/http.(*conn).close · naïve 日本") == "net/http.(*conn).close · naïve 日本"
    assert printable("a\x1b[2J\r\n\tb") == "a\\x1b[2J\\r\\n\\tb"
    assert printable("\u202egnp.exe") == "\\u202egnp.exe"  # turns the writing direction round
    assert printable("caf\udce9") == "caf\\udce9"


def test_columns() -> None:
    rows = [("1", "a", "x"), ("100", "bb", "")]
    assert columns(rows, right=[0]) == ["  1  a   x", "100  bb"]
    assert columns([("\x1b", "b")]) == ["\\x1b  b"]
    assert columns([]) == []


def test_wrapped() -> None:
    lines = Terminal(width=20).wrapped("one two three four five", first="  - ", indent=4)
    assert lines == ["  - one two three", "    four five"]
    assert Terminal(width=20).wrapped("", first="  ok  ", indent=6) == ["  ok"]


def test_colours_are_for_terminals() -> None:
    assert Terminal(colours=True).styled("on", Style.GOOD) == "\x1b[32mon\x1b[0m"
    assert Terminal(colours=True).styled("", Style.GOOD) == ""
    assert Terminal().styled("on", Style.GOOD) == "on"
    assert Terminal.of(io.StringIO(), {}) == Terminal(width=100, colours=False)
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "w") as terminal:
            assert Terminal.of(terminal, {"TERM": "xterm"}).colours
            assert not Terminal.of(terminal, {"TERM": "xterm", "NO_COLOR": "1"}).colours
            assert not Terminal.of(terminal, {"TERM": "dumb"}).colours
    finally:
        os.close(ours)
