"""The demo's clients: what they ask for, and what they were told."""

from __future__ import annotations

import http.client
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Request:
    """One to send. Its path is like no other, so that its span can be told from the others."""

    method: str
    path: str
    trace_id: str = ""
    span_id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. Status 0: the connection ended without an answer."""

    request: Request
    status: int

    @property
    def kind(self) -> str:
        """answered, 4xx, 5xx or aborted."""
        if self.status == 0:
            return "aborted"
        return {4: "4xx", 5: "5xx"}.get(self.status // 100, "answered")


_SHOP = [
    ("GET", "/products"),
    ("GET", "/products"),
    ("POST", "/orders"),
    ("GET", "/products"),
    ("GET", "/reports"),
    ("GET", "/nowhere"),
    ("GET", "/stock"),
    ("GET", "/products"),
    ("POST", "/orders"),
    ("GET", "/invoices"),
]


def requests(count: int, *, first: int = 0) -> Iterator[Request]:
    """Give the requests number `first` to `first + count`; two of three come from a caller that traces."""
    for number in range(first, first + count):
        method, section = _SHOP[number % len(_SHOP)]
        dice = random.Random(number)  # noqa: S311 -- ids for show, the same in every run
        traced = number % 3 != 0
        yield Request(
            method=method,
            path=f"{section}/{number}",
            trace_id=f"{dice.getrandbits(128) | 1:032x}" if traced else "",
            span_id=f"{dice.getrandbits(64) | 1:016x}" if traced else "",
        )


class Visitor:
    """A client with one connection, kept alive as long as the server lets it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._knocks = 0

    def send(self, request: Request) -> Answer:
        """Send a request and read what comes back, over a new connection if the last one has ended."""
        headers = {"User-Agent": "gospan-demo"}
        if request.trace_id:
            headers["Traceparent"] = f"00-{request.trace_id}-{request.span_id}-01"
        try:
            self._connection.request(request.method, request.path, headers=headers)
            response = self._connection.getresponse()
            response.read()
        except (http.client.HTTPException, ConnectionError):
            self._connection.close()
            return Answer(request, 0)
        return Answer(request, response.status)

    def knock(self) -> None:
        """Ask for something that isn't counted."""
        self._knocks += 1
        self.send(Request("GET", f"/ready/{self._knocks}"))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def __enter__(self) -> Visitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def crowd(cls, port: int, wanted: Iterator[Request], *, visitors: int) -> list[Answer]:
        """Send requests over several connections at the same time."""
        together = list(wanted)

        def one(part: Sequence[Request]) -> list[Answer]:
            with cls(port) as visitor:
                return [visitor.send(request) for request in part]

        with ThreadPoolExecutor(visitors) as pool:
            parts = pool.map(one, (together[start::visitors] for start in range(visitors)))
            return [answer for part in parts for answer in part]
