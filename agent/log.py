"""The agent's own messages: readable on a terminal, native entries in the journal, JSON lines elsewhere.

Rules of this log: a state is written once, when it changes, and counted after that (`StateLog`); the
priorities say what an administrator should do (3: something that ought to be traced isn't; 4: degraded; 5:
attached, detached; 6: summary; 7: debugging); the state changes worth a query have a message id (`Event`);
secrets never come near it.
"""

from __future__ import annotations

import array
import enum
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO, cast

from agent.config.choices import Level, LogFormat

# structlog takes rich along where it is installed, 5 MB for tracebacks in colour. Here it is installed for the commands
# that draw (agent/commands/screen.py), and the daemon has no use for it. asyncio, which it takes too, takes OpenSSL:
# 5 MB more, and gRPC has its own.
_modules = cast("dict[str, object]", sys.modules)
_hidden = [name for name in ("rich", "ssl") if name not in _modules]
_modules.update(dict.fromkeys(_hidden))
import structlog  # noqa: E402

for _name in _hidden:
    del _modules[_name]

JOURNAL_SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "gospan"

EventDict = MutableMapping[str, Any]


class Event(enum.Enum):
    """State changes worth finding: `journalctl MESSAGE_ID=...`. The ids never change; see sd-id128(3)."""

    ATTACHED = "98bbb93ea42041d4b45fdbd8884b2d77"
    """Probes of an executable were attached."""
    SKIPPED = "1411d35b02284a3e90a9e00e8e24b09d"
    """An executable that should be traced isn't, or not wholly, and why."""
    OFFSETS_UPDATED = "9527bd8fd44147848aa7202565250250"
    """A new table of field offsets is in force."""
    EXPORT_FAILING = "d03225bfbd55449aac52b788c8035ce0"
    """Spans no longer reach the collector."""
    EXPORT_RECOVERED = "7f8f107a44344655bb779eb2d787de95"
    """Spans reach the collector again."""
    EVENTS_LOST = "b8bb8229115244a9bee6392a0da25e76"
    """Events or spans were dropped, and for what reason."""


PRIORITY = {
    Event.ATTACHED: 5,
    Event.SKIPPED: 3,
    Event.OFFSETS_UPDATED: 5,
    Event.EXPORT_FAILING: 4,
    Event.EXPORT_RECOVERED: 5,
    Event.EVENTS_LOST: 4,
}
_LEVEL_OF_PRIORITY = {3: "error", 4: "warning", 5: "info", 6: "info", 7: "debug"}
_PRIORITY_OF_LEVEL = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
_NUMBER_OF_LEVEL = {Level.DEBUG: 10, Level.INFO: 20, Level.WARNING: 30, Level.ERROR: 40}


class Logger(Protocol):
    """What the rest of the agent uses of a logger: a sentence, and fields by name."""

    def debug(self, event: str, **fields: object) -> object:
        """Write for whoever debugs the agent."""

    def info(self, event: str, **fields: object) -> object:
        """Write a summary."""

    def warning(self, event: str, **fields: object) -> object:
        """Write that something is degraded."""

    def error(self, event: str, **fields: object) -> object:
        """Write that something which should work doesn't."""


def configure(
    level: Level = Level.INFO, form: LogFormat = LogFormat.AUTO, *, stream: TextIO | None = None
) -> None:
    """Set up all loggers of the process. Messages go to the journal's socket or to `stream` (stderr)."""
    stream = stream or sys.stderr
    if form is LogFormat.AUTO:
        form = detect(stream, os.environ)
    last: list[Any]
    factory: Any
    if form is LogFormat.JOURNAL:
        last, factory = [to_journal], _JournalFactory(JOURNAL_SOCKET, stream)
    elif form is LogFormat.JSON:
        last, factory = [_with_time, _with_message_id, _to_json], structlog.WriteLoggerFactory(stream)
    else:
        colours = stream.isatty() and "NO_COLOR" not in os.environ
        renderer = structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0)
        last = [_without_event, structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False), renderer]
        factory = structlog.WriteLoggerFactory(stream)
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_NUMBER_OF_LEVEL[level]),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )


def get() -> Logger:
    """Give the logger; what `configure` sets later holds for it too."""
    logger: Logger = structlog.get_logger()
    return logger


def detect(stream: TextIO, environ: Mapping[str, str]) -> LogFormat:
    """Choose how to write: to the journal if the stream is connected to it, else by whether it is a terminal.

    systemd sets JOURNAL_STREAM to "device:inode" of the socket it connected; a program started by the service
    with its output redirected inherits the variable, so the two are compared (systemd.exec(5),
    $JOURNAL_STREAM).
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return LogFormat.JSON
    if environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}" and Path(JOURNAL_SOCKET).exists():
        return LogFormat.JOURNAL
    return LogFormat.CONSOLE if stream.isatty() else LogFormat.JSON


def emit(logger: Logger, event: Event, message: str, **fields: object) -> None:
    """Write one of the known state changes, with the priority it has."""
    write = getattr(logger, _LEVEL_OF_PRIORITY[PRIORITY[event]])
    write(message, message_event=event, **fields)


# --- one state, one message ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _State:
    value: object
    repeats: int = 0


class StateLog:
    """Writes a state when it changes and counts it while it doesn't.

    A state belongs to (what, subject), such as ("export", endpoint) or ("plan", path of an executable). The
    number of subjects is bounded: the one that hasn't been heard of for longest is forgotten. May be used by
    several threads.
    """

    def __init__(self, logger: Logger | None = None, *, subjects: int = 4096) -> None:
        self._logger = logger or get()
        self._states: OrderedDict[tuple[str, str], _State] = OrderedDict()
        self._subjects = subjects
        self._lock = threading.Lock()

    def change(
        self, what: str, subject: str, state: object, event: Event | None, message: str, **fields: object
    ) -> bool:
        """Write `message` if the state is new, and say whether it was.

        A message without event has priority 6. It also tells how often the state before it was repeated.
        """
        with self._lock:
            known = self._states.get((what, subject))
            if known is not None and known.value == state:
                known.repeats += 1
                self._states.move_to_end((what, subject))
                return False
            self._set(what, subject, state)
        if known is not None and known.repeats:
            fields["repeated"] = known.repeats
        if event is None:
            self._logger.info(message, **fields)
        else:
            emit(self._logger, event, message, **fields)
        return True

    def quietly(self, what: str, subject: str, state: object) -> None:
        """Note a state that isn't worth a message, such as the good one to begin with."""
        with self._lock:
            self._set(what, subject, state)

    def _set(self, what: str, subject: str, state: object) -> None:
        self._states[(what, subject)] = _State(state)
        self._states.move_to_end((what, subject))
        if len(self._states) > self._subjects:
            self._states.popitem(last=False)

    def repeats(self, what: str, subject: str) -> int:
        """Say how often the present state was reported after it was written."""
        known = self._states.get((what, subject))
        return known.repeats if known else 0

    def forget(self, what: str, subject: str) -> None:
        """Drop a subject that is gone, so that a new one of that name is written about again."""
        with self._lock:
            self._states.pop((what, subject), None)


# --- the journal's native protocol --------------------------------------------------------------------------


def to_journal(_logger: object, method: str, event: EventDict) -> tuple[tuple[bytes], dict[str, Any]]:
    """Turn a message into a datagram for the journal; the last processor when the journal is written to."""
    event.pop("level", None)
    known = event.pop("message_event", None)
    priority = PRIORITY[known] if isinstance(known, Event) else _PRIORITY_OF_LEVEL.get(method, 6)
    message = str(event.pop("event", ""))
    exception = event.pop("exception", None)
    fields: dict[str, object] = {
        "MESSAGE": f"{message}\n{exception}" if exception else message,
        "PRIORITY": priority,
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    if isinstance(known, Event):
        fields["MESSAGE_ID"] = known.value
    for name, value in event.items():
        fields[_field_name(name)] = value
    return (encode_entry(fields),), {}


def _field_name(name: str) -> str:
    """Make a journal field's name: A-Z, 0-9 and _, at most 64 bytes (systemd.journal-fields(7))."""
    clean = "".join(char if char.isascii() and char.isalnum() else "_" for char in name.upper())
    return f"GOSPAN_{clean}"[:64]


def encode_entry(fields: Mapping[str, object]) -> bytes:
    r"""Encode an entry of the journal's native protocol (systemd, "Native Journal Protocol").

    A field is `NAME=value\n`; a value that has a newline in it is `NAME\n`, its length in 64 bits,
    little-endian, then the value and `\n`.
    """
    parts = []
    for name, value in fields.items():
        data = str(value).encode("utf-8", "surrogateescape" if isinstance(value, str) else "replace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), data))
    return b"".join(parts)


class _JournalFactory:
    """Makes loggers that send to the journal, all over one socket."""

    def __init__(self, path: str, fallback: TextIO) -> None:
        self._journal = Journal(path, fallback)

    def __call__(self, *_args: object) -> Journal:
        return self._journal


class Journal:
    """A datagram socket to journald; what can't be sent goes to `fallback` as text, and is counted."""

    def __init__(self, path: str = JOURNAL_SOCKET, fallback: TextIO | None = None) -> None:
        self._path = path
        self._fallback = fallback or sys.stderr
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # A journal that doesn't read must not hold up the loop that drains events for long.
        self._socket.settimeout(1.0)
        self.unsent = 0

    def msg(self, entry: bytes) -> None:
        """Send an encoded entry; as a sealed memfd if it is too large for a datagram."""
        try:
            try:
                self._socket.sendto(entry, self._path)
            except OSError as error:
                # EMSGSIZE from the socket's send buffer; ENOBUFS is what Linux gives past its limits.
                if error.errno not in _TOO_LARGE:
                    raise
                self._send_by_memfd(entry)
        except OSError:
            # journald is restarting, or gone, or too busy: stderr is all that's left.
            self.unsent += 1
            self._fallback.write(
                entry.split(b"\n", 1)[0].decode("utf-8", "replace").removeprefix("MESSAGE=") + "\n"
            )

    debug = info = warning = error = critical = exception = msg

    def _send_by_memfd(self, entry: bytes) -> None:
        descriptor = os.memfd_create("gospan-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(entry)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _ALL_SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
            self._socket.sendmsg([b""], rights, 0, self._path)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)
_ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


# --- lines --------------------------------------------------------------------------------------------------


def _with_time(_logger: object, _method: str, event: EventDict) -> EventDict:
    now = time.time()
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
    return {"time": stamp, "level": event.pop("level", ""), "message": event.pop("event", ""), **event}


def _with_message_id(_logger: object, _method: str, event: EventDict) -> EventDict:
    known = event.pop("message_event", None)
    if isinstance(known, Event):
        event["what"] = known.name.lower()
        event["message_id"] = known.value
    return event


def _without_event(_logger: object, _method: str, event: EventDict) -> EventDict:
    event.pop("message_event", None)
    return event


def _to_json(_logger: object, _method: str, event: EventDict) -> str:
    return json.dumps(event, default=str, ensure_ascii=False)
