"""The spans of database/sql, compared with what PostgreSQL and MariaDB wrote of each query into their own logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.databases import DATABASE, Logged, Server, mariadb, postgresql
from tests.support.golang import NEWEST
from tests.support.sql import RELEASES, Asking, asking, column, config, program, queries, requests

pytestmark = pytest.mark.kernel

DRIVERS = {"pq": "postgresql", "pgx": "postgresql", "mysql": "mysql"}

CALLS = {
    "query": 1,
    "queryrow": 1,
    "exec": 1,
    "update": 1,
    "prepared": 3,
    "prepared-exec": 1,
    "commit": 4,
    "rollback": 4,
    "tx-prepared": 3,
    "conn": 2,
    "background": 1,
    "goroutine": 1,
    "fan-out": 4,
    "long": 1,
}
"""Ways to ask that go well, and how many spans a request has in each."""

ERRORS = {
    "postgresql": {"syntax": "42601", "missing": "42P01", "twice": "23505"},
    "mysql": {"syntax": "1064", "missing": "1146", "twice": "1062"},
    "sqlite": {"syntax": "1", "missing": "1", "twice": "1555"},
}

_NOISE = ("-- ping", "deallocate", ";")
"""What drivers send by themselves."""


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    with postgresql() as postgres, mariadb() as maria:
        yield {"postgresql": postgres, "mysql": maria}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(config=config(tmp_path_factory.mktemp("config"))) as one:
        yield one


NATIVE = {
    "native-query": ["SELECT things"],
    "native-queryrow": ["SELECT things"],
    "native-exec": ["DELETE things"],
    "native-commit": ["BEGIN", "INSERT things", "COMMIT"],
    "native-batch": ["BATCH"],
    "native-copy": ["COPY things"],
}
"""Ways to ask by pgx's own interface, and the spans of a request in each."""

NATIVE_ERRORS = {"native-syntax": "42601", "native-missing": "42P01", "native-twice": "23505"}


def dsns(servers: dict[str, Server], drivers: Iterable[str] = DRIVERS) -> dict[str, str]:
    return {driver: servers[DRIVERS[driver]].dsn(driver) for driver in drivers}


def databases(servers: dict[str, Server], go: str = NEWEST) -> dict[str, str]:
    found = dsns(servers)
    found["pgxpool"] = servers["postgresql"].dsn("pgx")
    if go == NEWEST:
        found["sqlite"] = "file::memory:?cache=shared"
    return found


def logged(server: Server, since: int) -> list[Logged]:
    return [one for one in server.logged()[since:] if not one.text.lower().startswith(_NOISE)]


def operation(text: str) -> str:
    word = text.split()[0].upper()
    return "BEGIN" if word == "START" else word


def spans_of_request(daemon: Daemon, app: Asking, number: int, calls: int) -> list[Span]:
    """The queries that were made for a request, once they are all there."""

    def found() -> list[Span]:
        spans = daemon.spans_of(app.pid)
        server = requests(spans).get(number)
        return (
            [] if server is None else [one for one in queries(spans) if one.parent_span_id == server.span_id]
        )

    eventually(lambda: len(found()) >= calls, f"{calls} queries of request {number}")
    return found()


@pytest.mark.parametrize("go", RELEASES)
def test_every_way_to_ask_with_every_release(go: str, servers: dict[str, Server], daemon: Daemon) -> None:
    path = program(go)
    with asking(path, databases(servers, go)) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        for driver in (*DRIVERS, "sqlite") if go == NEWEST else DRIVERS:
            check_every_way(daemon, app, driver, servers.get(DRIVERS.get(driver, "")))
            check_errors(daemon, app, driver)


def test_where_pgx_is_the_only_driver_its_probes_do(servers: dict[str, Server], daemon: Daemon) -> None:
    """By the probes of pgx itself, and none of database/sql's, there are the same spans."""
    path = program(only_pgx=True)
    with asking(path, only_pgx(servers)) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        check_every_way(daemon, app, "pgx", servers["postgresql"])
        check_errors(daemon, app, "pgx")
        check_native(daemon, app, servers["postgresql"])


def only_pgx(servers: dict[str, Server]) -> dict[str, str]:
    return {name: servers["postgresql"].dsn("pgx") for name in ("pgx", "pgxpool")}


def check_every_way(daemon: Daemon, app: Asking, driver: str, server: Server | None) -> None:
    """One request after the other: the spans are in the order of the server's log."""
    since = len(server.logged()) if server else 0
    made: list[Span] = []
    assert app.ask("setup", driver)[1] == ""
    for way, calls in CALLS.items():
        number, error = app.ask(way, driver)
        assert error == ""
        found = spans_of_request(daemon, app, number, calls)
        assert len(found) == calls, (driver, way)
        for span in found:
            check_attributes(span, driver, server, way)
        made += found
    if server is None:
        return
    log = [one for one in logged(server, since) if "TABLE" not in one.text]
    assert [operation(one.text) for one in log] == [attributes(span)["db.operation.name"] for span in made]
    told = [column(attributes(span).get("db.query.text", "")) for span in made]
    for one, told_number in zip(log, told, strict=True):
        assert told_number is None or column(one.text) == told_number


def check_attributes(span: Span, driver: str, server: Server | None, way: str) -> None:
    has = attributes(span)
    text = has.get("db.query.text", "")
    assert has["db.system.name"] == DRIVERS.get(driver, driver)
    assert has["db.query.summary"] == span.name
    assert "secret" not in text
    assert "'" not in text
    assert span.status.code == Status.STATUS_CODE_UNSET, has
    if has["db.operation.name"] in ("BEGIN", "COMMIT", "ROLLBACK"):
        assert span.name == has["db.operation.name"]
    elif way == "long":
        assert text.endswith(" ...")
        assert len(text) > 300
        assert span.name == "SELECT items"
    else:
        assert has["db.collection.name"] == "items"
        assert span.name == f"{has['db.operation.name']} items"
    # Before lib/pq 1.11 where it connects to is in a map.
    if server and "server.address" in has:
        assert has["server.address"] == "127.0.0.1"
        assert has["server.port"] == server.port
        assert has["db.namespace"] == DATABASE
    else:
        assert driver in ("pq", "sqlite")


def check_errors(daemon: Daemon, app: Asking, driver: str) -> None:
    system = DRIVERS.get(driver, driver)
    for way, code in ERRORS[system].items():
        number, error = app.ask(way, driver)
        assert error != ""
        span = spans_of_request(daemon, app, number, 2 if way == "twice" else 1)[-1]
        has = attributes(span)
        assert (has["db.response.status_code"], has["error.type"]) == (code, code), error
        assert span.status.code == Status.STATUS_CODE_ERROR
    if driver == "sqlite":
        return
    number, error = app.ask("canceled", driver)
    has = attributes(spans_of_request(daemon, app, number, 1)[0])
    assert has["error.type"] in ("canceled", "57014", "*errors.errorString"), error


@pytest.mark.parametrize("drivers", (tuple(DRIVERS), ("pgx",)))
def test_a_connection_that_was_cut_off(
    drivers: tuple[str, ...], servers: dict[str, Server], daemon: Daemon
) -> None:
    """Whatever is made again over another connection has a span for each time, and so it is in the server's log."""
    path = program(only_pgx=drivers == ("pgx",))
    with asking(path, dsns(servers, drivers)) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        for driver in drivers:
            kind = DRIVERS[driver]
            assert app.ask("setup", driver)[1] == ""
            since = len(servers[kind].logged())
            number, error = app.ask("killed", driver)
            # MySQL's driver makes again only what it is sure that the server has not got.
            assert error in ("", "invalid connection")
            log = logged(servers[kind], since)
            found = spans_of_request(daemon, app, number, len(log))
            answered = [span for span in found if attributes(span).get("error.type") != "bad_connection"]
            assert len(found) >= len(log) >= len(answered)
            assert attributes(found[-1]).get("error.type", "") == ("bad_connection" if error else "")


@pytest.mark.parametrize("drivers", (tuple(DRIVERS), ("pgx",)))
def test_64_callers_at_once(drivers: tuple[str, ...], servers: dict[str, Server], daemon: Daemon) -> None:
    """Each query is a child of its own request, and those of one connection are in the order of the server's log."""
    path = program(only_pgx=drivers == ("pgx",))
    ways = ("query", "queryrow", "prepared", "commit", "goroutine", "fan-out", "conn", "rollback")
    with asking(path, dsns(servers, drivers)) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        for driver in drivers:
            kind = DRIVERS[driver]
            assert app.ask("setup", driver)[1] == ""
            since = len(servers[kind].logged())
            done = app.ask_at_once([(way, driver) for way in ways for _ in range(40)], callers=64)
            assert Counter(done.values()) == Counter(dict.fromkeys(ways, 40))
            log = logged(servers[kind], since)
            wanted = {number: CALLS[way] for number, way in done.items()}
            assert len(log) == sum(wanted.values())
            check_children(daemon, app, wanted)
            check_order(
                daemon, app, log, {n for n, way in done.items() if way not in ("fan-out", "prepared")}
            )


def check_children(daemon: Daemon, app: Asking, wanted: dict[int, int]) -> None:
    def children() -> dict[int, int]:
        spans = daemon.spans_of(app.pid)
        number_of = {span.span_id: number for number, span in requests(spans).items()}
        made: Counter[Any] = Counter(number_of.get(span.parent_span_id) for span in queries(spans))
        return {number: made[number] for number in wanted}

    eventually(lambda: sum(children().values()) >= sum(wanted.values()), "all queries")
    assert children() == wanted
    spans = daemon.spans_of(app.pid)
    served = {span.span_id: (number, span.trace_id) for number, span in requests(spans).items()}
    for span in queries(spans):
        number, trace_id = served[span.parent_span_id]
        assert span.trace_id == trace_id
        assert column(attributes(span).get("db.query.text", "")) in (None, number)


def check_order(daemon: Daemon, app: Asking, log: list[Logged], unique: set[int]) -> None:
    """Of each request in `unique` one connection answers."""
    begun: dict[int, list[int]] = {}
    for span in queries(daemon.spans_of(app.pid)):
        number = column(attributes(span).get("db.query.text", ""))
        if number in unique:
            begun.setdefault(number, []).append(span.start_time_unix_nano)
    compared = 0
    for connection in {one.connection for one in log}:
        last = 0
        seen: Counter[int] = Counter()
        for one in log:
            number = column(one.text)
            if one.connection != connection or number not in unique or not one.text.startswith("SELECT"):
                continue
            at = begun[number][seen[number]]
            seen[number] += 1
            assert at > last, one
            last = at
            compared += 1
    assert compared >= 40 * 6


@pytest.mark.parametrize("by_pgx", (False, True))
def test_what_the_configuration_turns_off(by_pgx: bool, servers: dict[str, Server], tmp_path: Path) -> None:
    """By the probes of database/sql, and by those of pgx where that is the only driver."""
    path = program(only_pgx=by_pgx)
    off = ("sql.query_text=false", "sql.transactions=false")
    with (
        running(*off, config=config(tmp_path)) as quiet,
        asking(path, only_pgx(servers)) as app,
    ):
        eventually(lambda: quiet.traces(str(path)), "the program is traced")
        assert app.ask("setup", "pgx")[1] == ""
        number, _ = app.ask("commit", "pgx")
        app.ask("query", "pgx")
        eventually(lambda: len(queries(quiet.spans_of(app.pid))) >= 5, "the queries")
        quiet.stop()
        made = queries(quiet.spans_of(app.pid))
    assert [span.name for span in made] == [
        "DROP TABLE items", "CREATE TABLE items", "INSERT items", "SELECT items", "SELECT items",
    ]  # fmt: skip
    assert not [span for span in made if "db.query.text" in attributes(span)]
    assert number


@pytest.mark.parametrize("go", RELEASES)
def test_pgx_without_database_sql(go: str, servers: dict[str, Server], daemon: Daemon) -> None:
    path = program(go)
    with asking(path, databases(servers, go)) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        check_native(daemon, app, servers["postgresql"])


def check_native(daemon: Daemon, app: Asking, server: Server) -> None:
    assert app.ask("native-setup", "pgxpool")[1] == ""
    for way, names in NATIVE.items():
        since = len(server.logged())
        number, error = app.ask(way, "pgxpool")
        assert error == ""
        found = spans_of_request(daemon, app, number, len(names))
        assert [span.name for span in found] == names, way
        log = [operation(one.text) for one in logged(server, since)]
        assert len(log) == (2 if way == "native-batch" else len(names)), log
        for span in found:
            has = attributes(span)
            assert (has["db.system.name"], has["db.namespace"]) == ("postgresql", DATABASE)
            assert (has["server.address"], has["server.port"]) == ("127.0.0.1", server.port)
            assert "secret" not in has.get("db.query.text", "")
            assert has.get("db.operation.batch.size") == (2 if way == "native-batch" else None)
            assert span.status.code == Status.STATUS_CODE_UNSET, has
    for way, code in NATIVE_ERRORS.items():
        number, error = app.ask(way, "pgxpool")
        assert error != ""
        span = spans_of_request(daemon, app, number, 2 if way == "native-twice" else 1)[-1]
        assert attributes(span)["db.response.status_code"] == code, error


def test_64_callers_of_pgx_at_once(servers: dict[str, Server], daemon: Daemon) -> None:
    path = program()
    server = servers["postgresql"]
    with asking(path, databases(servers)) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        assert app.ask("native-setup", "pgxpool")[1] == ""
        since = len(server.logged())
        ways = ("native-query", "native-queryrow", "native-exec", "native-commit")
        done = app.ask_at_once([(way, "pgxpool") for way in ways for _ in range(60)], callers=64)
        assert Counter(done.values()) == Counter(dict.fromkeys(ways, 60))
        wanted = {number: len(NATIVE[way]) for number, way in done.items()}
        assert len(logged(server, since)) == sum(wanted.values())
        check_children(daemon, app, wanted)
