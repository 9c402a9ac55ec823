"""What database/sql is asked for and gets no connection for: by real drivers, of servers that are there or are not."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.databases import DATABASE, Server, mariadb, postgresql
from tests.support.golang import NEWEST
from tests.support.sql import RELEASES, Asking, asking, column, config, program, queries, requests

pytestmark = pytest.mark.kernel

SYSTEMS = {"pq": "postgresql", "pgx": "postgresql", "mysql": "mysql"}

WAYS = {
    "query": "SELECT items",
    "queryrow": "SELECT items",
    "exec": "DELETE items",
    "update": "UPDATE items",
    "prepared": "SELECT items",
    "prepared-exec": "DELETE items",
    "commit": "BEGIN",
    "conn": "",
    "background": "SELECT items",
    "goroutine": "SELECT items",
}
"""Ways to ask, and what the span of the first thing is called that is asked for in each; "": it has no such name."""


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    with postgresql() as postgres, mariadb() as maria:
        yield {"postgresql": postgres, "mysql": maria}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(config=config(tmp_path_factory.mktemp("config"))) as one:
        yield one


def dsn(driver: str, port: int) -> str:
    return Server(port, Path(), SYSTEMS[driver]).dsn(driver)


def told(daemon: Daemon, app: Asking, number: int) -> list[Span]:
    """The queries that were made for a request: another one has come after it, so nothing is under way any more."""
    later, _ = app.ask("nothing", "pgx")
    eventually(lambda: later in requests(daemon.spans_of(app.pid)), f"request {later}")
    spans = daemon.spans_of(app.pid)
    return [one for one in queries(spans) if one.parent_span_id == requests(spans)[number].span_id]


@contextmanager
def traced(daemon: Daemon, path: Path, databases: dict[str, str]) -> Iterator[Asking]:
    with asking(path, databases) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        yield app


def check_failure(span: Span, driver: str, port: int, error: str, go: str) -> dict[str, Any]:
    """An error span of something that got no connection; its attributes."""
    has = attributes(span)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert has["error.type"] == error
    assert has["db.system.name"] == SYSTEMS[driver]
    assert "secret" not in has.get("db.query.text", "")
    # lib/pq has the server's address in the text only that it is opened by, and so has go-sql-driver/mysql before 1.5;
    # pgx tells it by its own errors.
    if "server.address" in has:
        assert (has["server.address"], has["server.port"]) == ("127.0.0.1", port)
        assert has["db.namespace"] == DATABASE
    else:
        assert driver == "pq" or (driver, go) == ("mysql", "1.19.13") or error in ("timeout", "canceled")
    return has


def check_ways(daemon: Daemon, app: Asking, driver: str, port: int, error: str, go: str = NEWEST) -> None:
    """Each way to ask has one span, an error, which is the request's child."""
    for way, name in WAYS.items():
        number, said = app.ask(way, driver)
        assert said != "", way
        found = told(daemon, app, number)
        if way == "conn" and go == "1.19.13":
            assert found == []
            continue
        (span,) = found
        has = check_failure(span, driver, port, error, go)
        assert span.name == (name or has.get("db.namespace", SYSTEMS[driver])), way
        assert column(has.get("db.query.text", "")) in (None, number)
        assert ("db.query.text" in has) == (name not in ("", "BEGIN"))


@pytest.mark.parametrize("go", RELEASES)
def test_a_server_that_is_not_there(go: str, daemon: Daemon) -> None:
    databases = {driver: dsn(driver, 1) for driver in SYSTEMS}
    with traced(daemon, program(go), databases) as app:
        for driver in SYSTEMS:
            check_ways(daemon, app, driver, 1, "connection_refused", go)


@pytest.mark.parametrize("go", RELEASES)
def test_a_server_that_hangs_up(go: str, daemon: Daemon) -> None:
    """It takes connections, and closes each at once, as what stands before a server does that is not there."""
    closing = socket.create_server(("127.0.0.1", 0))

    def close() -> None:
        with suppress(OSError):
            while True:
                closing.accept()[0].close()

    threading.Thread(target=close, daemon=True).start()
    port = closing.getsockname()[1]
    with traced(daemon, program(go), {driver: dsn(driver, port) for driver in SYSTEMS}) as app:
        for driver in SYSTEMS:
            for way in ("query", "update", "commit", "prepared"):
                number, said = app.ask(way, driver)
                assert said != ""
                found = told(daemon, app, number)
                if go == "1.19.13" and said == "driver: bad connection":
                    assert found == []
                    continue
                (span,) = found
                error = attributes(span)["error.type"]
                assert error in ("bad_connection", "connection_closed", "connection_reset"), said
                check_failure(span, driver, port, error, go)
    closing.shutdown(socket.SHUT_RDWR)
    closing.close()


def test_where_pgx_tells_of_queries(daemon: Daemon) -> None:
    """In an executable with pgx as its only driver, whose own probes have no part in connecting."""
    with traced(daemon, program(only_pgx=True), {"pgx": dsn("pgx", 1)}) as app:
        check_ways(daemon, app, "pgx", 1, "connection_refused")


def test_a_database_that_is_not_there(servers: dict[str, Server], daemon: Daemon) -> None:
    """The server refuses: its own code is told."""
    codes = {"pq": "3D000", "pgx": "3D000", "mysql": "1049"}
    missing = {
        driver: servers[SYSTEMS[driver]].dsn(driver).replace(f"/{DATABASE}", "/nowhere") for driver in codes
    }
    with traced(daemon, program(), missing) as app:
        for driver, code in codes.items():
            number, error = app.ask("query", driver)
            (span,) = told(daemon, app, number)
            has = attributes(span)
            assert has["db.response.status_code"] == has["error.type"] == code, error
            assert span.name == "SELECT items"


@pytest.mark.parametrize(("go", "only_pgx"), [*((go, False) for go in RELEASES), (NEWEST, True)])
def test_no_connection_in_time(go: str, only_pgx: bool, servers: dict[str, Server], daemon: Daemon) -> None:
    """All that may be open are used until the context's deadline has passed; or the context is done before."""
    drivers = ("pgx",) if only_pgx else tuple(SYSTEMS)
    databases = {driver: servers[SYSTEMS[driver]].dsn(driver) for driver in drivers}
    with traced(daemon, program(go, only_pgx=only_pgx), databases) as app:
        for driver in drivers:
            port = servers[SYSTEMS[driver]].port
            assert app.ask("setup", driver)[1] == ""
            for way, name, error in (
                ("exhausted", "SELECT items", "timeout"),
                ("exhausted-begin", "BEGIN", "timeout"),
                ("done", "SELECT items", "canceled"),
            ):
                number, said = app.ask(way, driver)
                assert said.startswith("context "), (way, said)
                (span,) = told(daemon, app, number) or pytest.fail(f"{driver} {way} {said}")
                check_failure(span, driver, port, error, go)
                assert span.name == name
            # What is tried again over another connection has not failed.
            number, said = app.ask("outdated", driver)
            assert said == ""
            assert [one.status.code for one in told(daemon, app, number)] == [Status.STATUS_CODE_UNSET] * 5


def test_pgx_is_turned_off_while_the_agent_runs(servers: dict[str, Server], tmp_path: Path) -> None:
    """Then database/sql has all of its probes, and not only those for what gets no connection; and back."""
    path = config(tmp_path)

    def disable(names: str, times: int) -> None:
        text = path.read_text().partition("[libraries]")[0]
        path.write_text(f"{text}[libraries]\ndisabled = {names}\n")
        own.process.send_signal(signal.SIGHUP)
        eventually(lambda: reloads() == times, "the reload is told")

    def reloads() -> int:
        return sum(one.get("message", "").startswith("the configuration ") for one in own.messages)

    with (
        running(config=path) as own,
        traced(own, program(only_pgx=True), {"pgx": servers["postgresql"].dsn("pgx")}) as app,
    ):
        assert app.ask("setup", "pgx")[1] == ""
        for times, names in enumerate(('["pgx"]', "[]"), 1):
            disable(names, times)
            number, error = app.ask("query", "pgx")
            assert error == ""
            (span,) = told(own, app, number)
            assert span.name == "SELECT items"
            number, error = app.ask("done", "pgx")
            (span,) = told(own, app, number)
            assert attributes(span)["error.type"] == "canceled", error
