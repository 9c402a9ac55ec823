"""What is told of databases that tests have no server of, by the types of their drivers; and SQLite by cgo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.daemon import attributes, eventually, running
from tests.support.sql import asking_drivers, config, drivers_program, queries

pytestmark = pytest.mark.kernel

ASKED: tuple[tuple[str, dict[str, Any], dict[str, object]], ...] = (
    (
        "sqlite3",
        {"exec": "CREATE TABLE items (id INTEGER PRIMARY KEY)"},
        {"db.query.summary": "CREATE TABLE items"},
    ),
    ("sqlite3", {"exec": "INSERT INTO items VALUES (?)", "args": [1]}, {"db.collection.name": "items"}),
    (
        "sqlite3",
        {"query": "SELECT id FROM items WHERE id > 0"},
        {"db.query.text": "SELECT id FROM items WHERE id > ?"},
    ),
    ("sqlite3", {"exec": "INSERT INTO items VALUES (1)"}, {"error.type": "1555"}),
    ("sqlite3", {"query": "SELECT FRM items"}, {"error.type": "1"}),
    ("wrapped", {"exec": "DELETE FROM missing"}, {"error.type": "1"}),
    ("clickhouse", {"exec": "OPTIMIZE TABLE items"}, {"server.address": "127.0.0.1", "db.namespace": "shop"}),
    (
        "clickhouse",
        {"query": "SELECT id FROM missing"},
        {"error.type": "60", "db.collection.name": "missing"},
    ),
    (
        "clickhouse native",
        {"exec": "OPTIMIZE TABLE items"},
        {"server.address": "127.0.0.1", "db.namespace": "shop"},
    ),
    (
        "clickhouse native",
        {"query": "SELECT id FROM missing"},
        {"error.type": "60", "server.address": "127.0.0.1", "db.namespace": "shop"},
    ),
    (
        "mssql",
        {"query": "SELECT TOP 1 [id] FROM [items]", "args": [{}]},
        {
            "error.type": "*errors.errorString",
            "server.address": "db.example.com",
            "server.port": 1434,
            "db.namespace": "shop",
        },
    ),
    ("godror", {"query": "SELECT 1 FROM dual"}, {"error.type": "bad_connection"}),
    ("failing", {"exec": "mssql"}, {"error.type": "208"}),
    ("failing", {"exec": "godror"}, {"error.type": "942"}),
)
"""A driver, what it is asked, and what a span tells of that, among others."""

SYSTEMS = {
    "sqlite3": "sqlite",
    "wrapped": "sqlite",
    "clickhouse": "clickhouse",
    "clickhouse native": "clickhouse",
    "mssql": "microsoft.sql_server",
    "godror": "oracle.db",
    "failing": "other_sql",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[list[Span]]]:
    """The spans of each that is asked."""
    with running(config=config(tmp_path_factory.mktemp("config"))) as daemon, asking_drivers() as (pid, ask):
        eventually(lambda: daemon.traces(str(drivers_program())), "the program is traced")
        answers = [ask(driver, **asked) for driver, asked, _ in ASKED]
        assert [bool(answer) for answer in answers] == ["error.type" in wanted for _, _, wanted in ASKED]
        daemon.stop()
        made = [one for one in queries(daemon.spans_of(pid)) if "db.system.name" in attributes(one)]
    spans = iter(made)
    # What found a connection bad is made again twice, over others.
    yield [[next(spans) for _ in range(3 if driver == "godror" else 1)] for driver, _, _ in ASKED]
    assert next(spans, None) is None


@pytest.mark.parametrize("number", range(len(ASKED)))
def test_every_driver_is_known_by_its_type(number: int, told: list[list[Span]]) -> None:
    driver, _, wanted = ASKED[number]
    for span in told[number]:
        has = attributes(span)
        assert has["db.system.name"] == SYSTEMS[driver]
        assert {name: has.get(name) for name in wanted} == wanted
        code = wanted.get("error.type", "")
        assert has.get("db.response.status_code") == (code if str(code).isdigit() else None)
        failed = Status.STATUS_CODE_ERROR if code else Status.STATUS_CODE_UNSET
        assert span.status.code == failed, has
