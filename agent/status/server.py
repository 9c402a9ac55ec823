"""The status socket: a thread that answers, so that whoever asks, or reads slowly, never holds up the loop.

Reports are made by the loop, when it is asked to; spans come from those that are kept in memory, encoded as they are.
Nothing waits for a client: what one doesn't read stays in a buffer with a limit, spans that don't fit are missed, and
it is told how many.
"""

from __future__ import annotations

import base64
import contextlib
import grp
import json
import os
import selectors
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.log import Logger
from agent.spans.sinks import EncodedChunk, RecentSpans
from agent.status.protocol import MAX_REQUEST, REPORT, SPANS, Json

GROUP = "gospan"
"""Whoever is in this group, where there is one, may ask; else root alone."""

MAX_CLIENTS = 16
MAX_BUFFER = 1 << 20
"""Bytes that may wait for a client before it misses spans."""

_PIECE = 128
"""Spans in a line, at most."""

_TICK = 0.1
_PATIENCE = 30.0
"""Seconds after which a client that neither asks nor reads is let go."""


class SocketError(Exception):
    """The status socket can't be opened; a sentence."""


@dataclass(slots=True)
class _Client:
    """`following` is the number of the next span that it wants, None where it wants none; `until` ends that."""

    connection: socket.socket
    request: bytes = b""
    waiting: bytearray = field(default_factory=bytearray)
    following: int | None = None
    until: float = float("inf")
    asked: bool = False
    active: float = field(default_factory=time.monotonic)


class StatusServer:
    """Listens, in a thread of its own, until closed. `ask` is called there to have the loop make a report."""

    def __init__(self, path: Path, recent: RecentSpans, log: Logger, ask: Callable[[], None]) -> None:
        """Open the socket; raise SocketError."""
        self._path = path
        self._recent = recent
        self._log = log
        self._ask = ask
        self._clients: list[_Client] = []
        self._answer: Json | None = None
        self._closing = False
        self._listener = _listen(path, log)
        self._inode = path.stat().st_ino
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="gospan-status", daemon=True)
        self._thread.start()

    # --- the loop's side ---

    def answer(self, report: Json) -> None:
        """Hand over the report that was asked for."""
        self._answer = {"report": report}
        self._signal()

    def fail(self, why: str) -> None:
        """Say that there is no report, and why."""
        self._answer = {"error": why}
        self._signal()

    def close(self) -> None:
        """End the thread and remove the socket, unless another agent has put its own there."""
        self._closing = True
        self._signal()
        self._thread.join(2.0)
        if not self._thread.is_alive():
            os.close(self._woken)
            os.close(self._wake)
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _signal(self) -> None:
        with contextlib.suppress(BlockingIOError):  # then it is awake already
            os.write(self._wake, b"x")

    # --- the thread ---

    def _run(self) -> None:
        while not self._closing:
            following = any(client.following is not None for client in self._clients)
            for key, events in self._selector.select(_TICK if following else _PATIENCE):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj == self._woken:
                    os.read(self._woken, 64)
                else:
                    self._serve(key.data, events)
            self._hand_out_report()
            for client in list(self._clients):
                self._hand_out_spans(client)
                if client in self._clients and self._is_idle(client):
                    self._drop(client)
        for client in list(self._clients):
            self._drop(client)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # whoever called has hung up, or there are no descriptors left
        connection.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS:
            with contextlib.suppress(OSError):
                connection.send(
                    _line({"error": f"{MAX_CLIENTS} others are connected already; try again later"})
                )
            connection.close()
            return
        client = _Client(connection)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _drop(self, client: _Client) -> None:
        self._clients.remove(client)
        self._selector.unregister(client.connection)
        client.connection.close()

    def _is_idle(self, client: _Client) -> bool:
        """Whether a client has done nothing for long. One that follows need not ask, only read what there is."""
        if client.following is not None and not client.waiting:
            return False
        return time.monotonic() - client.active > _PATIENCE

    def _serve(self, client: _Client, events: int) -> None:
        if client not in self._clients:
            return
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(client)
            if events & selectors.EVENT_READ:
                data = client.connection.recv(MAX_REQUEST)
                if not data:
                    self._drop(client)
                    return
                client.active = time.monotonic()
                self._requested(client, data)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _requested(self, client: _Client, data: bytes) -> None:
        client.request += data
        *lines, client.request = client.request.split(b"\n")
        if len(client.request) > MAX_REQUEST or len(lines) > 1:
            self._refuse(client, "one request at a time, of one short line")
            return
        for line in lines:
            try:
                request = json.loads(line)
                want = request["want"]
                last, follow = request.get("last"), bool(request.get("follow", False))
                since = self._first(int(request.get("since", -1)), None if last is None else int(last))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self._refuse(client, 'a request is a JSON object such as {"want": "report"}')
                return
            if want == REPORT:
                client.asked = True
                self._ask()
            elif want == SPANS:
                self._begin_spans(client, since, follow=follow)
            else:
                self._refuse(client, f"there are {REPORT} and {SPANS} to be had")

    def _refuse(self, client: _Client, why: str) -> None:
        client.request = b""
        self._send(client, {"error": why})

    def _hand_out_report(self) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            return
        line = _line(answer)
        for client in list(self._clients):
            if client.asked:
                client.asked = False
                self._put(client, line)

    def _first(self, since: int, last: int | None) -> int:
        """Give the number to begin with: as asked for, or of the last so many, or of all that are kept."""
        if since >= 0:
            return since
        kept, following = self._recent.kept, self._recent.next_number
        return following - (kept if last is None else min(kept, max(0, last)))

    def _begin_spans(self, client: _Client, since: int, *, follow: bool) -> None:
        client.following = since
        client.until = float("inf") if follow else self._recent.next_number
        self._hand_out_spans(client)

    def _hand_out_spans(self, client: _Client) -> None:
        """Put spans into the client's buffer while it has room; the others may be gone when it has again."""
        if client.following is None or len(client.waiting) >= MAX_BUFFER:
            return
        missed, chunks = self._recent.encoded_since(client.following)
        if missed:
            client.following += missed
            self._send(client, {"missed": missed})
        for piece in _pieces(chunks):
            if client.following >= client.until or len(client.waiting) >= MAX_BUFFER:
                break
            client.following = piece.first + len(piece.spans)
            self._send(client, _spans(piece))
        if client.following >= client.until:
            self._send(client, {"end": client.following})
            client.following = None

    def _send(self, client: _Client, message: Json) -> None:
        self._put(client, _line(message))

    def _put(self, client: _Client, line: bytes) -> None:
        if client not in self._clients:
            return
        idle = not client.waiting
        client.waiting += line
        if idle:
            try:
                self._flush(client)
            except OSError:
                self._drop(client)

    def _flush(self, client: _Client) -> None:
        """Send what the socket takes now."""
        with contextlib.suppress(BlockingIOError):
            while client.waiting:
                del client.waiting[: client.connection.send(client.waiting)]
                client.active = time.monotonic()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.waiting else 0)
        self._selector.modify(client.connection, events, client)


def _line(message: Json) -> bytes:
    return json.dumps(message, separators=(",", ":"), default=str).encode() + b"\n"


def _spans(chunk: EncodedChunk) -> Json:
    """Encode a chunk: OTLP's messages as they are, in base64, so that it costs next to nothing here."""
    return {
        "first": chunk.first,
        "resource": base64.b64encode(chunk.origin.resource).decode(),
        "scope": base64.b64encode(chunk.origin.scope).decode(),
        "spans": [base64.b64encode(span).decode() for span in chunk.spans],
    }


def _pieces(chunks: Iterable[EncodedChunk]) -> Iterator[EncodedChunk]:
    """Cut chunks into such as make a line."""
    for chunk in chunks:
        for start in range(0, len(chunk.spans), _PIECE):
            yield EncodedChunk(chunk.first + start, chunk.origin, chunk.spans[start : start + _PIECE])


# --- the socket ---------------------------------------------------------------------------------------------


def _listen(path: Path, log: Logger) -> socket.socket:
    """Open the socket for root and the group; a former agent's is replaced, a running one's is not."""
    group = _group()
    try:
        if not path.parent.exists():
            path.parent.mkdir(mode=0o750, parents=True)
        if _is_answered(path):
            raise SocketError(f"another agent answers at {path}; `gospan status` shows that one")
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        try:
            before = os.umask(0o117)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(MAX_CLIENTS)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SocketError(f"{path} can't be opened: {error.strerror or error}") from None
    if group is not None:
        _give_to(group, (path.parent, path), log)
    return listener


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def _group() -> int | None:
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


def _give_to(group: int, paths: Iterable[Path], log: Logger) -> None:
    """Let the group in. Without CAP_CHOWN that needs the agent to be in it (SupplementaryGroups=)."""
    try:
        for path in paths:
            if path.stat().st_gid != group:
                os.chown(path, -1, group)
    except OSError as error:
        log.warning(f"only root can ask for the status, not the group {GROUP}", reason=error.strerror)
