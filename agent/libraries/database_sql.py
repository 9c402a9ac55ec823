"""database/sql: one CLIENT span a query, and one for each beginning and end of a transaction."""

from __future__ import annotations

from agent.libraries.library import ARGUMENT, Feature, Library, Probe, Substitute
from agent.spans.resource import SCHEMA_URL
from agent.spans.sql import sql_encoder

_STDLIB = "github.com/jackc/pgx/v5/stdlib"
_DB, _STMT, _TX = "database/sql.(*DB)", "database/sql.(*Stmt)", "database/sql.(*Tx)"
_ASKING = ("query", "exec", "prepare", "begin")
"""Methods of DB that ask for a connection, to send something over it; Conn does as well."""


def _kept(method: str, *arguments: int) -> tuple[str, ...]:
    return tuple(f"{_DB}.{method}{ARGUMENT}{number}" for number in arguments)


DATABASE_SQL = Library(
    name="database/sql",
    object="database_sql",
    schema_url=SCHEMA_URL,
    records={"sql_record": sql_encoder},
    # pgx's own interface is probed anyway. Its statements have had their text below database/sql since 5.5.0, which is
    # when this field came.
    substitute=Substitute(
        library="pgx",
        programs=("pgx_query_start", "pgx_query_end", "pgx_exec_start", "pgx_exec_end"),
        interface="database/sql/driver.Conn",
        types=(f"*{_STDLIB}.Conn",),
        fields=(f"{_STDLIB}.Conn.psRefCounts",),
        but=("sql_unconnected", "sql_attempts_over"),
    ),
    probes=(
        Probe(
            program="sql_query_start",
            symbols=(f"{_DB}.queryDC",),
            gives="the beginning of queries",
        ),
        Probe(
            program="sql_exec_start",
            symbols=(f"{_DB}.execDC",),
            gives="the beginning of statements without rows",
        ),
        Probe(
            program="sql_stmt_start",
            symbols=(f"{_STMT}.QueryContext", f"{_STMT}.ExecContext"),
            gives="the beginning of prepared statements",
        ),
        Probe(
            program="sql_query_end",
            symbols=(f"{_DB}.queryDC", f"{_STMT}.QueryContext", f"{_DB}.beginDC"),
            at="return",
            gives="the end of queries",
        ),
        Probe(
            program="sql_exec_end",
            symbols=(f"{_DB}.execDC", f"{_STMT}.ExecContext"),
            at="return",
            gives="the end of statements without rows",
        ),
        Probe(
            program="sql_begin_start",
            symbols=(f"{_DB}.beginDC",),
            gives="the beginning of transactions",
        ),
        Probe(
            program="sql_commit_start",
            symbols=(f"{_TX}.Commit",),
            gives="transactions that are committed",
        ),
        Probe(
            program="sql_rollback_start",
            symbols=(f"{_TX}.rollback",),
            gives="transactions that are rolled back",
        ),
        Probe(
            program="sql_tx_end",
            symbols=(f"{_TX}.Commit", f"{_TX}.rollback"),
            at="return",
            gives="the end of transactions",
        ),
        Probe(
            program="sql_unconnected",
            symbols=tuple(f"{_DB}.{method}" for method in _ASKING),
            at="failure",
            calls=(f"{_DB}.conn",),
            gives="what gets no connection",
        ),
        Probe(
            program="sql_unconnected",
            symbols=(f"{_DB}.Conn",),
            at="failure",
            # Before Go 1.20 it asks for connections in a loop of its own.
            calls=(f"{_DB}.retry",),
            gives="Conn where it gets none",
        ),
        # Before Go 1.20 there is no such function.
        Probe(
            program="sql_attempts_over",
            symbols=(f"{_DB}.retry",),
            at="tail",
            gives="what gets no connection at the last of several attempts",
        ),
    ),
    features=(
        Feature(what="which calls return", fields=(("runtime.g.stack.hi",),), required=True),
        Feature(what="db.system.name", fields=(("database/sql.driverConn.ci",),)),
        Feature(
            what="db.query.text of prepared statements",
            fields=(("database/sql.Stmt.query",),),
            of="sql_stmt_start",
        ),
        Feature(
            what="db.system.name of prepared statements",
            fields=(
                (
                    "database/sql.Stmt.cgds",
                    "database/sql.Stmt.css",
                    "database/sql.connStmt.dc",
                    "database/sql.driverStmt.Locker",
                ),
            ),
            of="sql_stmt_start",
        ),
        Feature(
            what="db.system.name and the parent of the end of transactions",
            fields=(("database/sql.Tx.dc", "database/sql.Tx.ctx", "database/sql.Tx.done"),),
            of="sql_commit_start",
        ),
        *(
            Feature(
                what=f"db.query.text and the parent where {_DB}.{method} gets no connection",
                fields=(_kept(method, 3, 4, 5),),
                of=f"{_DB}.{method}",
            )
            for method in _ASKING[:-1]
        ),
        Feature(
            what="db.system.name of what gets no connection",
            fields=(("database/sql.DB.connector", "database/sql.dsnConnector.driver"),),
            of="sql_unconnected",
        ),
    ),
)
