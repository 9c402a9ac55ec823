"""The program that is traced while it is measured, and the clients that keep it busy."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gospan import cpu_seconds
from tests.support import golang

PATH = "/items/42"
"""What is asked for: a route with a wildcard, answered with a line of text."""

CONNECTIONS = 16

_HEADERS = (
    "Accept: */*",
    "Accept-Encoding: gzip",
    "User-Agent: gospan-test/1.0",
    "X-Request-Id: 0123456789abcdef",
    "X-Forwarded-For: 192.0.2.7",
    "Cookie: session=0123456789abcdef",
    "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)


class BenchError(Exception):
    """A measurement can't be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running server."""

    pid: int
    port: int

    def knock(self) -> None:
        """Ask for the page once; a server that isn't there yet is no error."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", PATH)
            connection.getresponse().read()
        connection.close()


@dataclass(frozen=True, slots=True)
class Load:
    """What a client counted. `cpu_us` is the target's processor time a request."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_us: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def build_server(workspace: Path) -> Path:
    """Build the server of the tests as for production (newest Go, stripped), in a file of our own.

    Probes belong to a file: of one that tests run as well, their spans would be counted.
    """
    return Path(shutil.copy(golang.build("http_server"), workspace / "http_server"))


def client() -> Path:
    """Build the client of the tests."""
    return golang.build("http_client")


@contextlib.contextmanager
def running(executable: Path) -> Iterator[Target]:
    """Run the server of the tests, and end it."""
    with subprocess.Popen([executable], stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = json.loads(process.stdout.readline() if process.stdout else "")
            yield Target(pid=process.pid, port=ready["http"])
        finally:
            process.kill()


def saturate(target: Target, *, seconds: int) -> Load:
    """Keep the target as busy as wrk can over 16 connections, with eight header lines a request."""
    headers = [argument for header in _HEADERS for argument in ("-H", header)]
    before = cpu_seconds(target.pid)
    url = f"http://127.0.0.1:{target.port}{PATH}"
    text = _output(["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", *headers, url])
    spent = cpu_seconds(target.pid) - before
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", text)
    if not found or "Non-2xx" in text:
        raise BenchError(f"wrk: {text}")
    requests, took = int(found[1]), float(found[2]) / (1000 if found[3] == "ms" else 1)
    return Load(requests, took, _latency(text, 50), _latency(text, 99), spent / requests * 1e6)


def _latency(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)$", text, re.MULTILINE)
    if not found:
        raise BenchError(f"wrk: {text}")
    return float(found[1]) * {"us": 1.0, "ms": 1e3, "s": 1e6}[found[2]]


def flood(
    target: Target,
    *,
    requests: int = 0,
    seconds: float = 0,
    rate: float = 0,
    pipeline: int = 1,
) -> Load:
    """Send exactly `requests`, or for some seconds, at a rate; ends when all are answered."""
    options = {
        "address": f"127.0.0.1:{target.port}",
        "target": PATH,
        "connections": CONNECTIONS,
        "requests": requests,
        "duration": f"{seconds}s",
        "rate": rate,
        "pipeline": pipeline,
    }
    before = cpu_seconds(target.pid)
    text = _output([str(client()), *(f"-{name}={value}" for name, value in options.items())])
    spent = cpu_seconds(target.pid) - before
    counted = json.loads(text.splitlines()[-1])
    sent = counted["requests"]
    return Load(sent, counted["seconds"], counted["p50_us"], counted["p99_us"], spent / sent * 1e6)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise BenchError(f"{Path(command[0]).name} failed: {done.stdout}")
    return done.stdout
