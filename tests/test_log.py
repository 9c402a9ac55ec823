"""What is written, in each of the three forms, and how often."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from agent import log
from agent.config import Level, LogFormat
from agent.log import PRIORITY, Event, Journal, StateLog, detect, emit, encode_entry

DOCUMENT = (Path(__file__).parents[1] / "docs/configuration.md").read_text()


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def decode(data: bytes) -> dict[str, bytes]:
    """Read an entry of the native protocol, as journald does."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + length], rest[8 + length + 1 :]
        else:
            data = rest
        fields[name.decode()] = value
    return fields


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = tmp_path / "journal"
    monkeypatch.setattr(log, "JOURNAL_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(5)
        yield server


def test_ids_are_unique_and_valid() -> None:
    assert len({event.value for event in Event}) == len(Event)
    for event in Event:
        assert re.fullmatch("[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", event.value)
        assert f"| `{event.value}` | " in DOCUMENT
        assert event in PRIORITY


def test_journal_fields(journal: socket.socket) -> None:
    log.configure(Level.DEBUG, LogFormat.JOURNAL, stream=io.StringIO())
    emit(
        log.get(),
        Event.ATTACHED,
        "Attached",
        pid=42,
        exe="/srv/a b",
        library="net/http",
        **{"odd-name": "two\nlines"},
    )
    assert decode(journal.recv(65536)) == {
        "MESSAGE": b"Attached",
        "PRIORITY": b"5",
        "SYSLOG_IDENTIFIER": b"gospan",
        "MESSAGE_ID": Event.ATTACHED.value.encode(),
        "GOSPAN_PID": b"42",
        "GOSPAN_EXE": b"/srv/a b",
        "GOSPAN_LIBRARY": b"net/http",
        "GOSPAN_ODD_NAME": b"two\nlines",
    }


def test_journal_priorities(journal: socket.socket) -> None:
    log.configure(Level.DEBUG, LogFormat.JOURNAL, stream=io.StringIO())
    logger = log.get()
    for write, priority in (
        (logger.debug, b"7"),
        (logger.info, b"6"),
        (logger.warning, b"4"),
        (logger.error, b"3"),
    ):
        write("x")
        assert decode(journal.recv(65536))["PRIORITY"] == priority
    emit(logger, Event.SKIPPED, "x")
    assert decode(journal.recv(65536))["PRIORITY"] == b"3"


def test_message_too_large_for_a_datagram_goes_by_descriptor(journal: socket.socket) -> None:
    log.configure(Level.INFO, LogFormat.JOURNAL, stream=io.StringIO())
    text = "x" * 5_000_000
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    log.get().info("large", text=text)
    data, descriptors, _, _ = socket.recv_fds(journal, 65536, 1)
    assert data == b""
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        assert decode(file.read())["GOSPAN_TEXT"] == text.encode()
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(file.fileno(), b"x", 0)
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0  # noqa: PTH208


def test_journal_that_is_gone(tmp_path: Path) -> None:
    stream = io.StringIO()
    journal = Journal(str(tmp_path / "nothing"), stream)
    journal.msg(encode_entry({"MESSAGE": "hello", "PRIORITY": 6}))
    journal.close()
    assert stream.getvalue() == "hello\n"
    assert journal.unsent == 1


def test_json_lines() -> None:
    stream = io.StringIO()
    log.configure(Level.INFO, LogFormat.JSON, stream=stream)
    log.get().debug("too quiet")
    emit(log.get(), Event.EXPORT_FAILING, "Spans don't arrive", endpoint="http://a", path=Path("/b"))
    try:
        int("boom")
    except ValueError:
        log.get().error("failed", exc_info=True)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "warning",
        "message": "Spans don't arrive",
        "endpoint": "http://a",
        "path": "/b",
        "what": "export_failing",
        "message_id": Event.EXPORT_FAILING.value,
    }
    assert "boom" in second["exception"]


def test_terminal_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        log.configure(Level.INFO, LogFormat.AUTO, stream=terminal)
        emit(log.get(), Event.ATTACHED, "Attached", pid=42)
        terminal.flush()
        text = os.read(leader, 4096).decode()
    os.close(leader)
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[info *\] Attached +pid=42\r\n", plain)


def test_form_is_detected(journal: socket.socket, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        status = os.fstat(stream.fileno())
        ours = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert detect(stream, ours) is LogFormat.JOURNAL
        assert detect(stream, {"JOURNAL_STREAM": "1:1"}) is LogFormat.JSON
        assert detect(stream, {}) is LogFormat.JSON
        journal.close()
        Path(log.JOURNAL_SOCKET).unlink()
        assert detect(stream, ours) is LogFormat.JSON
    assert detect(io.StringIO(), ours) is LogFormat.JSON


def test_a_state_is_written_when_it_changes() -> None:
    stream = io.StringIO()
    log.configure(Level.INFO, LogFormat.JSON, stream=stream)
    states = StateLog()
    states.quietly("export", "a", "ok")
    assert not states.change("export", "a", "ok", Event.EXPORT_RECOVERED, "fine")
    assert states.change("export", "a", "failing", Event.EXPORT_FAILING, "down")
    for _ in range(5):
        assert not states.change("export", "a", "failing", Event.EXPORT_FAILING, "down")
    assert states.repeats("export", "a") == 5
    assert states.change("export", "b", "failing", Event.EXPORT_FAILING, "down too")
    assert states.change("export", "a", "ok", Event.EXPORT_RECOVERED, "fine")
    assert states.change("plan", "a", "ok", None, "other matter")
    states.forget("plan", "a")
    assert states.change("plan", "a", "ok", None, "other matter")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["message"], line.get("repeated")) for line in lines] == [
        ("down", 1),
        ("down too", None),
        ("fine", 5),
        ("other matter", None),
        ("other matter", None),
    ]


def test_number_of_subjects_is_bounded() -> None:
    log.configure(Level.ERROR, LogFormat.JSON, stream=io.StringIO())
    states = StateLog(subjects=3)
    for subject in "abcabcd":
        states.change("plan", subject, "x", None, "m")
    assert states.repeats("plan", "b") == 1
    assert states.repeats("plan", "a") == 0
    assert states.change("plan", "a", "x", None, "m")
