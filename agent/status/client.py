"""Asking the running agent, by its status socket."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.config import Status
from agent.spans.sinks import RecentSpan
from agent.status.protocol import REPORT, SPANS, Json
from agent.status.server import GROUP

VARIABLE = "GOSPAN_STATUS_SOCKET"
_TIMEOUT = 10.0
_PIECE = 1 << 16


class AskError(Exception):
    """The agent can't be asked, or doesn't answer; a sentence with the remedy."""


class NotRunningError(AskError):
    """Nobody is there to be asked."""


class NotAllowedError(AskError):
    """Who asks may not."""


@dataclass(frozen=True, slots=True)
class Missed:
    """So many spans are not known here: they were gone before they could be read."""

    count: int


def socket_path(given: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Say where to ask: as given, by the environment, or where it is by default.

    The configuration isn't read: whoever may ask need not be allowed to read it.
    """
    return given or Path(environ.get(VARIABLE) or Status().socket)


class Agent:
    """A connection to the running agent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def report(self) -> Json:
        """Ask for everything but spans. Raises AskError."""
        self._ask({"want": REPORT})
        answer = self._line()
        found = answer.get("report")
        if not isinstance(found, dict):
            raise AskError(f"the agent answers something else: {str(answer)[:100]}")
        return found

    def spans(
        self, last: int | None = None, *, since: int | None = None, follow: bool = False
    ) -> Iterator[RecentSpan | Missed]:
        """Give the spans that are kept, or the last so many of them, or those from the number `since` on.

        With `follow` those to come as well, without end. Raises AskError.
        """
        beginning = {} if since is None else {"since": since}
        self._ask({"want": SPANS, "last": last, "follow": follow, **beginning})
        if follow:
            self._connection.settimeout(None)
        while "end" not in (answer := self._line()):
            if "missed" in answer:
                yield Missed(int(answer["missed"]))
            else:
                yield from _decode(answer)

    def _ask(self, request: Json) -> None:
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            pass  # why it has hung up can be read
        except OSError as error:
            raise AskError(f"the agent has hung up: {error.strerror}") from None

    def _line(self) -> Json:
        parts = [self._rest]
        while b"\n" not in parts[-1]:
            try:
                data = self._connection.recv(_PIECE)
            except TimeoutError:
                raise AskError(
                    f"the agent has not answered for {_TIMEOUT:.0f} s; just after its start it is busy: try again"
                ) from None
            except OSError as error:
                raise AskError(f"the agent has hung up: {error.strerror}") from None
            if not data:
                raise AskError("the agent has hung up; it was stopped, or is starting anew")
            parts.append(data)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            raise AskError("whoever listens there is not gospan: what it says is no JSON") from None
        if not isinstance(answer, dict):
            raise AskError("whoever listens there is not gospan: what it says is no JSON object")
        if "error" in answer:
            raise AskError(f"the agent refuses: {answer['error']}")
        return answer


@contextmanager
def connected(path: Path) -> Iterator[Agent]:
    """Connect to the agent. Raises AskError: NotRunningError, NotAllowedError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NotRunningError(
                f"not running: nobody listens at {path}; `systemctl start gospan` starts it, "
                f"--socket or {VARIABLE} names another place"
            ) from None
        except PermissionError:
            raise NotAllowedError(
                f"you may not ask at {path}: use sudo, or join the group that may "
                f"(`sudo usermod -aG {GROUP} $USER`, then log in again)"
            ) from None
        except OSError as error:
            raise AskError(f"{path} can't be connected to: {error.strerror or error}") from None
        yield Agent(connection)


def _decode(chunk: Json) -> Iterator[RecentSpan]:
    resource, scope = _origin(str(chunk["resource"]), str(chunk["scope"]))
    for number, span in enumerate(chunk["spans"], start=int(chunk["first"])):
        yield RecentSpan(number, resource, scope, Span.FromString(base64.b64decode(span)))


@lru_cache(maxsize=1024)
def _origin(resource: str, scope: str) -> tuple[Resource, InstrumentationScope]:
    return (
        Resource.FromString(base64.b64decode(resource)),
        InstrumentationScope.FromString(base64.b64decode(scope)),
    )
