"""github.com/jackc/pgx/v5 without database/sql: one CLIENT span a query."""

from __future__ import annotations

from agent.executable.places import At
from agent.libraries.library import Feature, Library, Probe
from agent.spans.resource import SCHEMA_URL
from agent.spans.sql import postgresql_encoder

_PGX = "github.com/jackc/pgx/v5"
_NO_USE = "the linker found no use for it"


def _probe(program: str, method: str, gives: str, at: At = "entry") -> Probe:
    return Probe(program=program, symbols=(f"{_PGX}.{method}",), gives=gives, at=at, absent=_NO_USE)


PGX = Library(
    name="pgx",
    object="pgx",
    module=_PGX,
    schema_url=SCHEMA_URL,
    records={"sql_record": postgresql_encoder},
    probes=(
        _probe("pgx_query_start", "(*Conn).Query", "the beginning of queries"),
        _probe("pgx_query_end", "(*baseRows).Close", "the end of queries", "work"),
        _probe("pgx_exec_start", "(*Conn).Exec", "the beginning of statements without rows"),
        _probe("pgx_exec_end", "(*Conn).Exec", "the end of statements without rows", "return"),
        _probe("pgx_batch_start", "(*Conn).SendBatch", "the beginning of batches"),
        _probe("pgx_batch_end", "(*Conn).SendBatch", "the end of batches", "return"),
        _probe("pgx_copy_start", "(*Conn).CopyFrom", "the beginning of copies"),
        _probe("pgx_copy_end", "(*Conn).CopyFrom", "the end of copies", "return"),
    ),
    features=(
        Feature(
            what="which calls return, and which queries have ended",
            fields=(("runtime.g.stack.hi", f"{_PGX}.baseRows.conn"),),
            required=True,
        ),
        Feature(
            what="server.address, server.port, db.namespace",
            fields=(
                (
                    f"{_PGX}.Conn.config",
                    *(f"{_PGX}.ConnConfig.Config.{name}" for name in ("Host", "Port", "Database")),
                ),
            ),
        ),
        Feature(
            what="errors of queries",
            fields=(
                (
                    f"{_PGX}.baseRows.err",
                    f"{_PGX}.baseRows.resultReader",
                    f"{_PGX}/pgconn.ResultReader.err",
                    f"{_PGX}/pgconn.PgError.Code",
                ),
            ),
        ),
        Feature(
            what="db.operation.batch.size",
            fields=((f"{_PGX}.Batch.QueuedQueries",), (f"{_PGX}.Batch.queuedQueries",)),
            of="pgx_batch_start",
        ),
    ),
)
