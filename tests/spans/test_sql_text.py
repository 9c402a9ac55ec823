"""What is told of SQL: no value, whatever the dialect, and the operation and its tables."""

from __future__ import annotations

import pytest

from agent.spans.sql_text import parse_statement, shape

STATEMENTS = [
    # (query, system, text, summary, operation, collection)
    (
        "SELECT a.id FROM accounts a JOIN orders AS o ON a.id = o.id WHERE n = 'it''s' AND t > 10.5 AND c IN (1,-2)",
        "postgresql",
        "SELECT a.id FROM accounts a JOIN orders AS o ON a.id = o.id WHERE n = ? AND t > ? AND c IN (?,-?)",
        "SELECT accounts orders",
        "SELECT",
        "",
    ),
    (
        "insert into t (a) values ($1, 'x') on conflict (a) do update set b = 5",
        "postgresql",
        "insert into t (a) values ($1, ?) on conflict (a) do update set b = ?",
        "INSERT t",
        "INSERT",
        "t",
    ),
    (
        'INSERT INTO `t` VALUES (?, "secret", \'a\\\', \', "b\\"secret")',
        "mysql",
        "INSERT INTO `t` VALUES (?, ?, ?, ?)",
        "INSERT t",
        "INSERT",
        "t",
    ),
    ("SELECT 'a\\', 1 FROM \"T 1\"", "postgresql", 'SELECT ?, ? FROM "T 1"', "SELECT T 1", "SELECT", "T 1"),
    (
        "SELECT E'q\\'secret', $$it's$$, $x$ y $x$, x'ff', B'01', 1e5 -- secret\n/* secret */ FROM s.t",
        "postgresql",
        "SELECT ?, ?, ?, ?, ?, ? FROM s.t",
        "SELECT s.t",
        "SELECT",
        "s.t",
    ),
    ("DELETE FROM ONLY public.users", "postgresql", "DELETE FROM ONLY public.users", "DELETE public.users", "DELETE",
     "public.users"),
    ("insert into a select * from b", "mysql", "insert into a select * from b", "INSERT a SELECT b", "INSERT", ""),
    ("SELECT * FROM t FOR UPDATE", "mysql", "SELECT * FROM t FOR UPDATE", "SELECT t", "SELECT", "t"),
    ("SELECT * FROM series(1, 5)", "postgresql", "SELECT * FROM series(?, ?)", "SELECT", "SELECT", ""),
    ("CREATE TABLE IF NOT EXISTS t (a int)", "sqlite", "CREATE TABLE IF NOT EXISTS t (a int)", "CREATE TABLE t",
     "CREATE", "t"),
    ("SELECT ?1, :2 FROM t", "sqlite", "SELECT ?1, :2 FROM t", "SELECT t", "SELECT", "t"),
    ("CALL secret('x')", "mysql", "CALL secret(?)", "CALL", "CALL", ""),
    ("bogus 'secret'", "mysql", "bogus ?", "", "", ""),
    ("SELECT \"secret\" FROM t", "other_sql", "SELECT ? FROM t", "SELECT t", "SELECT", "t"),
    ("SELECT 'a\\', 'secret'", "other_sql", "", "", "", ""),
    ("SELECT 'secret", "postgresql", "", "", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("query", "system", "text", "summary", "operation", "collection"), STATEMENTS)
def test_a_statement(
    query: str, system: str, text: str, summary: str, operation: str, collection: str
) -> None:
    assert parse_statement(query, system) == (text, summary, operation, collection)


@pytest.mark.parametrize("query", [one[0] for one in STATEMENTS])
@pytest.mark.parametrize("system", ["postgresql", "mysql", "sqlite", "oracle.db", "other_sql"])
def test_its_shape_says_the_same(query: str, system: str) -> None:
    assert parse_statement(shape(query), system) == parse_statement(query, system)


def test_queries_that_differ_in_values_have_one_shape() -> None:
    query = "SELECT \"a 1\", `b 2` FROM t1 WHERE a = {} AND b = '{}' AND c IN ({}, 5) LIMIT {}"
    assert shape(query.format(1, "x", 2, 3)) == shape(query.format(100, "y z", 7, 30))
    assert shape("SELECT * FROM t1") != shape("SELECT * FROM t2")
    assert shape("SELECT $1, $2") != shape("SELECT $2, $1")


@pytest.mark.parametrize("length", range(1, 120))
def test_a_text_that_was_cut_tells_no_value(length: int) -> None:
    """Wherever it is cut: in a string, a name, a comment."""
    query = "SELECT id /* secret */ FROM items WHERE a = 'secret''s' AND b = $$secret$$ AND c = \"name\" AND d = 12345"
    text = parse_statement(query[:length], "postgresql", cut=True).text
    assert "sec" not in text
    assert not text or text.endswith(" ...")
