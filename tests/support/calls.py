"""Runs tests/apps/http_calls and sorts its spans: which call was made for which request, and what its parent is."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.config import Config, Selector
from tests.support.daemon import attributes
from tests.support.golang import build
from tests.support.tracing import Tracing, tracing


@dataclass
class Calls:
    """The running program; requests are numbered through all that it is asked."""

    program: Path
    pid: int
    port: int
    https: str
    backend: int
    numbers: Iterator[int]

    def ask(
        self,
        path: str,
        requests: int,
        *,
        connections: int = 1,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> list[int]:
        """Send requests over connections that are kept alive, and give their numbers."""
        given: list[int] = []
        threads = [
            threading.Thread(target=self._ask, args=(path, requests // connections, headers, given))
            for _ in range(connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(given) == requests // connections * connections
        return given

    def ask_http2(self, path: str, requests: int, *, at_a_time: int) -> list[int]:
        """The same by HTTP/2, by the program itself in another process."""
        given = [next(self.numbers) for _ in range(requests)]
        numbers = (str(number) for number in (given[0], requests, at_a_time))
        subprocess.run([self.program, "ask", self.https + path, *numbers], check=True, timeout=60)
        return given

    def _ask(self, path: str, requests: int, headers: Mapping[str, str], given: list[int]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        for _ in range(requests):
            number = next(self.numbers)
            connection.request("GET", f"{path}?id={number}", headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            given.append(number)
        connection.close()


@contextmanager
def calling(program: Path) -> Iterator[Calls]:
    """Run the program until the block ends."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            yield Calls(program, ready["pid"], ready["http"], ready["https"], ready["backend"], count(1))
        finally:
            process.kill()


@contextmanager
def traced_calls(go: str) -> Iterator[tuple[Tracing, Calls]]:
    """Run the program as a release of Go builds it, and trace it."""
    program = build("http_calls", go=go)
    discovery = replace(Config().discovery, include=(Selector(exe=str(program)),))
    with tracing(replace(Config(), discovery=discovery)) as watched, calling(program) as app:
        watched.tracer.scan()
        assert watched.traced(program) == [app.pid]
        yield watched, app


def number_in(url: str, name: str) -> int | None:
    """The number of a request that a URL tells of."""
    found = parse_qs(urlsplit(url).query).get(name)
    return int(found[0]) if found else None


def requests(spans: Sequence[Span]) -> dict[int, Span]:
    """The program's requests by number: SERVER spans."""
    found = {}
    for span in spans:
        if span.kind == Span.SPAN_KIND_SERVER:
            number = number_in("?" + attributes(span).get("url.query", ""), "id")
            if number is not None:
                assert number not in found
                found[number] = span
    return found


def calls(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    """The program's calls, each with the number of the request that it was made for: CLIENT spans."""
    found = []
    for span in spans:
        if span.kind == Span.SPAN_KIND_CLIENT:
            number = number_in(attributes(span)["url.full"], "request")
            assert number is not None
            found.append((number, span))
    return found
