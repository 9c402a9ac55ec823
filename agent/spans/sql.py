"""CLIENT spans from the records of SQL databases, by OpenTelemetry's stable database conventions.

What repeats is kept as it was encoded: all of a span but ids and times, by the bytes of the record from which it came.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.kernel.formats import Format
from agent.spans.go_error import GoError
from agent.spans.http import text_of
from agent.spans.records import TEXT_CUT, Encoder
from agent.spans.sql_text import Statement, parse_statement, shape
from agent.spans.template import HEADER, encode_header, remember, set_attribute

_LENGTH = TEXT_CUT - 1

OTHER_SQL = "other_sql"
"""db.system.name where the driver isn't known (OpenTelemetry conventions)."""

SYSTEMS = {
    "pq": "postgresql",
    "stdlib": "postgresql",
    "pgx": "postgresql",
    "pgdriver": "postgresql",
    "mysql": "mysql",
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
    "mssql": "microsoft.sql_server",
    "clickhouse": "clickhouse",
    "godror": "oracle.db",
    "oci8": "oracle.db",
    "go_ora": "oracle.db",
    "gosnowflake": "snowflake",
    "spannerdriver": "gcp.spanner",
    "trino": "trino",
    "firebirdsql": "firebirdsql",
}
"""The database behind a driver, by the Go package that its connections' type is of."""

_OPERATIONS = ("", "BEGIN", "COMMIT", "ROLLBACK", "BATCH", "COPY", "")
"""By number (enum sql_operation, bpf/sql.h)."""

_COPY = 5

_PORTS = {"postgresql": 5432, "mysql": 3306}
"""Ports that the conventions leave out: they are the system's own."""

_SQLSTATE = re.compile(r"[0-9A-Z]{5}")

_TEXTS = (
    "query",
    "driver",
    "driver_inner",
    "host",
    "database",
    "error_state",
    "error.type",
    "error.cause",
    "error.text",
)
_NUMBERS = ("port", "operation", "failed", "batch_size", "error_number", "error.number")

_TEMPLATES_MAX = 1024
"""How many encodings are kept; a query may have some KB."""


class _Settings:
    """What all encoders do alike: the agent's configuration says it once, at its start."""

    def __init__(self) -> None:
        self.text = True


_settings = _Settings()


def tell_query_text(*, tell: bool) -> None:
    """Whether spans have db.query.text."""
    _settings.text = tell


def sql_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct sql_record` (bpf/sql.h)."""
    return _SqlEncoder(record).encode


def postgresql_encoder(record: Format) -> Encoder:
    """Make the encoder of such records of a library that speaks to PostgreSQL only."""
    return _SqlEncoder(record, "postgresql").encode


class _Texts(NamedTuple):
    query: bytes
    driver: bytes
    driver_inner: bytes
    host: bytes
    database: bytes
    error_state: bytes
    error: bytes
    error_cause: bytes
    error_text: bytes


class _SqlEncoder:
    """Keeps what repeats from query to query, encoded."""

    def __init__(self, record: Format, system: str = "") -> None:
        position = {field.name: index for index, field in enumerate(record.fields)}
        self._system = system
        self._unpack = record.packer.unpack_from
        self._header = itemgetter(*(position[f"header.{name}"] for name in HEADER))
        self._texts = itemgetter(
            *(position[f"{name}.{part}"] for name in _TEXTS for part in ("offset", "length"))
        )
        self._numbers = itemgetter(*(position[name] for name in _NUMBERS))
        self._body = record.offset(_FIRST)
        self._templates: dict[bytes, bytes] = {}
        self._statements: dict[tuple[str, str, bool], Statement] = {}

    def encode(self, record: bytes, clock: int) -> bytes:
        """Make the encoded span of a record; `clock` ns are added to its times to make them Unix time."""
        fields = self._unpack(record)
        key = record[self._body :]
        template = self._templates.get(key)
        if template is None:
            template = self._template(record, self._texts(fields), *self._numbers(fields))
            if len(self._templates) >= _TEMPLATES_MAX:
                self._templates.clear()
            self._templates[key] = template
        return template + encode_header(clock, *self._header(fields))

    def _template(
        self,
        record: bytes,
        places: tuple[int, ...],
        port: int,
        operation: int,
        failed: int,
        batch_size: int,
        code: int,
        number: int,
    ) -> bytes:
        """Encode all of a span but ids and times."""
        texts = _Texts(*(record[at : at + (length & _LENGTH)] for at, length in _pairs(places)))
        system = self._system or system_of(text_of(texts.driver), text_of(texts.driver_inner))
        span = Span(kind=Span.SPAN_KIND_CLIENT)
        set_attribute(span, "db.system.name", system)
        if operation == _COPY:
            table = text_of(texts.query)
            statement = Statement("", f"COPY {table}", "COPY", table)
        elif operation:
            name = _OPERATIONS[operation]
            statement = Statement("", name, name, "")
        else:
            statement = self._statement(text_of(texts.query), system, cut=bool(places[1] & TEXT_CUT))
        if statement.text and _settings.text:
            set_attribute(span, "db.query.text", statement.text)
        if statement.summary:
            set_attribute(span, "db.query.summary", statement.summary)
        if statement.operation:
            set_attribute(span, "db.operation.name", statement.operation)
        if statement.collection:
            set_attribute(span, "db.collection.name", statement.collection)
        if batch_size > 1:
            set_attribute(span, "db.operation.batch.size", batch_size)
        namespace = text_of(texts.database)
        if namespace:
            set_attribute(span, "db.namespace", namespace)
        host, port = _address(text_of(texts.host), port)
        if host:
            set_attribute(span, "server.address", host)
        if port and port != _PORTS.get(system):
            set_attribute(span, "server.port", port)
        span.name = statement.summary or namespace or (f"{host}:{port}" if host and port else host) or system
        if failed:
            _describe_error(span, texts, code, number)
        return span.SerializeToString()

    def _statement(self, query: str, system: str, *, cut: bool) -> Statement:
        """Take a query apart, unless one that differs in its values only has been before."""
        key = (shape(query), system, cut)
        statement = self._statements.get(key)
        if statement is None:
            statement = parse_statement(key[0], system, cut=cut)
            remember(self._statements, key, statement)
        return statement


_FIRST = "batch_size"
"""The first member behind the header: from here on records of the same query are equal."""


def _pairs(places: tuple[int, ...]) -> zip[tuple[int, int]]:
    return zip(places[::2], places[1::2], strict=True)


def system_of(driver: str, inner: str = "") -> str:
    """The value of db.system.name for the type of a driver's connection, such as `*pq.conn`, or of what it wraps."""
    for type_name in (driver, inner):
        package, dot, _ = type_name.lstrip("*").partition(".")
        if dot and package in SYSTEMS:
            return SYSTEMS[package]
    return OTHER_SQL


def _address(host: str, port: int) -> tuple[str, int]:
    """A server's name and port; MySQL's driver has them in one, a socket's path has no port."""
    if host.startswith(("/", "@")):
        return host, 0
    if port:
        return host, port
    name, colon, number = host.rpartition(":")
    if colon and number.isascii() and number.isdigit():
        return name.removeprefix("[").removesuffix("]"), int(number)
    return host, 0


def _describe_error(span: Span, texts: _Texts, code: int, number: int) -> None:
    """Say what went wrong: by the database's own code, if the error has one."""
    state = text_of(texts.error_state)
    if not _SQLSTATE.fullmatch(state):
        state = str(code) if code else ""
    if state:
        set_attribute(span, "db.response.status_code", state)
        set_attribute(span, "error.type", state)
    else:
        error = GoError(text_of(texts.error), text_of(texts.error_cause), text_of(texts.error_text), number)
        set_attribute(span, "error.type", error.kind)
        span.status.message = error.message
    span.status.code = Status.STATUS_CODE_ERROR
