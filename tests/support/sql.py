"""The program of tests/apps/databases: building it with releases of the drivers, and having it ask databases."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.calls import number_in
from tests.support.daemon import attributes
from tests.support.golang import ARCH, BUILD, NEWEST, build
from tests.support.modules import with_versions

_PQ, _PGX, _MYSQL = "github.com/lib/pq", "github.com/jackc/pgx/v5", "github.com/go-sql-driver/mysql"

RELEASES: dict[str, dict[str, str]] = {
    "1.19.13": {_PQ: "1.10.9", _PGX: "5.3.0", _MYSQL: "1.4.0", "modernc.org/sqlite": "1.21.2"},
    "1.22.12": {_PQ: "1.0.0", _PGX: "5.6.0", _MYSQL: "1.8.1", "modernc.org/sqlite": "1.29.10"},
    "1.24.13": {_PQ: "1.11.0", _PGX: "5.7.6", _MYSQL: "1.9.3", "modernc.org/sqlite": "1.38.2"},
    NEWEST: {_PQ: "1.12.3", _PGX: "5.12.0", _MYSQL: "1.10.1", "modernc.org/sqlite": "1.62.0"},
}
"""Releases of Go, each with releases of the drivers: the oldest, the newest, and some between."""

DRIVERS = {
    "github.com/mattn/go-sqlite3": "1.14.53",
    "github.com/microsoft/go-mssqldb": "1.11.2",
    "github.com/ClickHouse/clickhouse-go/v2": "2.50.0",
    "github.com/godror/godror": "0.40.4",
}
"""Releases of the drivers that only their types are known of, with no database to be had here."""

_COLUMN = re.compile(r"\bq_(\d+)\b")


def program(go: str = NEWEST, *, only_pgx: bool = False, arch: str = ARCH) -> Path:
    """The program, stripped, with all drivers or with pgx only.

    SQLite, which takes a minute to be compiled, is among them by the newest Go only.
    """
    source = with_versions("databases", RELEASES[go], go=go)
    tags = ["only_pgx"] if only_pgx else ["sqlite"] if go == NEWEST else []
    return build(source, go=go, arch=arch, tags=tags)


@dataclass
class Asking:
    """The running program; requests are numbered through all that it is asked."""

    pid: int
    port: int
    numbers: Iterator[int]

    def ask(self, way: str, database: str) -> tuple[int, str]:
        """Have it ask a database in one of its ways: the request's number, and the error, "" if there was none."""
        number = next(self.numbers)
        url = f"http://127.0.0.1:{self.port}/{way}/{database}?id={number}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return number, json.load(answer).get("error", "")

    def ask_at_once(self, asked: Sequence[tuple[str, str]], *, callers: int) -> dict[int, str]:
        """Ask in several ways from so many threads: which request was made in which way."""
        waiting = iter(asked)
        lock = threading.Lock()
        done: dict[int, str] = {}

        def caller() -> None:
            while True:
                with lock:
                    one = next(waiting, None)
                if one is None:
                    return
                number, error = self.ask(*one)
                done[number] = error or one[0]

        threads = [threading.Thread(target=caller) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return done


@contextmanager
def asking(path: Path, databases: Mapping[str, str]) -> Iterator[Asking]:
    """Run the program with databases, each a name and how its driver finds it."""
    command = [str(path), *(f"{name}={dsn}" for name, dsn in databases.items())]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            yield Asking(ready["pid"], ready["http"], count(1))
        finally:
            process.kill()


def config(folder: Path) -> Path:
    """A configuration that leaves out what other tests run meanwhile: spans are looked through again and again."""
    path = folder / "config.toml"
    path.write_text(f"""
        [export]
        endpoint = "http://127.0.0.1:PORT"
        [[discovery.include]]
        exe = "{BUILD}/*"
    """)
    return path


def drivers_program() -> Path:
    """The program of tests/apps/drivers, stripped, with cgo; C code is compiled fast and not to be fast."""
    return build(with_versions("drivers", DRIVERS), cgo=True, cflags="-O0 -g0 -w")


@contextmanager
def asking_drivers() -> Iterator[tuple[int, Callable[..., str]]]:
    """Run it: its process, and what has it ask a driver and gives the error, "" if there was none."""
    with subprocess.Popen(
        [str(drivers_program())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(driver: str, **asked: object) -> str:
            stdin.write(json.dumps({"driver": driver} | asked) + "\n")
            stdin.flush()
            error: str = json.loads(stdout.readline()).get("error", "")
            return error

        try:
            yield json.loads(stdout.readline())["pid"], ask
        finally:
            process.kill()


def requests(spans: Sequence[Span]) -> dict[int, Span]:
    """The program's own requests, by number: SERVER spans."""
    found = {}
    for span in spans:
        if span.kind == Span.SPAN_KIND_SERVER:
            number = number_in("?" + attributes(span).get("url.query", ""), "id")
            assert number is not None
            found[number] = span
    return found


def queries(spans: Sequence[Span]) -> list[Span]:
    """What it asked, in the order in which that began: CLIENT spans."""
    return sorted(
        (span for span in spans if span.kind == Span.SPAN_KIND_CLIENT),
        key=lambda span: span.start_time_unix_nano,
    )


def column(text: str) -> int | None:
    """The number of the request that a query was made for, where a column tells."""
    found = _COLUMN.search(text)
    return int(found[1]) if found else None
