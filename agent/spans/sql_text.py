"""What SQL says, without the values in it: texts whose literals are replaced, and what they do to which tables.

Tokens are sqlglot's, by the dialect of the database: where a string ends depends on it, and what is not known for
certain not to be a value goes nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from types import new_class
from typing import Any, NamedTuple, Protocol

CUT_MARK = "..."
"""The end of a text that was longer than a record has room for."""

_DIALECTS = {
    "postgresql": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "microsoft.sql_server": "tsql",
    "oracle.db": "oracle",
    "clickhouse": "clickhouse",
    "snowflake": "snowflake",
}
_DEFAULT_DIALECT = "mysql"
"""Takes "..." for a string, so that a value is never taken for a name."""

_LITERALS = frozenset(
    {
        "NUMBER",
        "STRING",
        "BIT_STRING",
        "HEX_STRING",
        "BYTE_STRING",
        "NATIONAL_STRING",
        "RAW_STRING",
        "HEREDOC_STRING",
        "UNICODE_STRING",
    }
)

_NAMES = frozenset({"VAR", "IDENTIFIER"})

_NUMBERED = frozenset({"PARAMETER", "PLACEHOLDER"})
"""A number right behind one of these is the number of a parameter: `$1`, `?1`."""

_TABLE_FOLLOWS = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "TABLE", "USING", "TRUNCATE", "REFERENCES"})
_BEFORE_TABLE = frozenset(
    {"IF", "NOT", "EXISTS", "ONLY", "IGNORE", "LOW_PRIORITY", "DELAYED", "OVERWRITE", "TABLE"}
)
_AFTER_TABLE = frozenset({"SET", "VALUES", "WHERE", "SELECT", "DEFAULT"})

_OPERATIONS = frozenset(
    {
        "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "UPSERT", "CREATE", "ALTER", "DROP", "TRUNCATE",
        "CALL", "EXEC", "EXECUTE", "EXPLAIN", "SHOW", "SET", "USE", "COPY", "LOCK", "BEGIN", "START", "COMMIT",
        "ROLLBACK", "SAVEPOINT", "RELEASE", "GRANT", "REVOKE", "ANALYZE", "VACUUM", "PRAGMA", "LISTEN", "NOTIFY",
        "UNLISTEN", "DISCARD", "PREPARE", "DEALLOCATE", "DECLARE", "FETCH", "CLOSE", "REFRESH", "REINDEX", "OPTIMIZE",
        "DESCRIBE", "VALUES", "ATTACH", "DETACH", "KILL", "FLUSH", "DO", "END", "ABORT",
    }
)  # fmt: skip
"""What a statement may begin with; another word is not told."""

_NESTED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
"""Operations that are told as well where they are within another one."""

_OBJECTS = frozenset(
    {"TABLE", "INDEX", "VIEW", "DATABASE", "SCHEMA", "SEQUENCE", "FUNCTION", "PROCEDURE", "TRIGGER"}
)

_SUMMARY_MAX = 255
"""Characters in db.query.summary (OpenTelemetry database conventions)."""

_ENDINGS = ("", "'", '"', "`", "*/", "]", "$$")
"""What may close a string, a name or a comment in which a text was cut."""

_INTRICATE = re.compile(r"[\\\[#$]|--|/\*")
_PLAIN = re.compile(
    r"""(?P<name>"[^"]*"|`[^`]*`)|(?P<string>'[\w .,:;@/+-]+')|(?<=[ =<>(,+*/-])\d+(?=[ ,);]|$)"""
)


class _TokenType(Protocol):
    name: str


class Token(Protocol):
    """What is used of sqlglot's tokens; `end` is the place of the last character."""

    token_type: _TokenType
    text: str
    start: int
    end: int


class Statement(NamedTuple):
    """A query; `text` without values, "" where that can't be made for certain. `collection` is its only table."""

    text: str
    summary: str
    operation: str
    collection: str


def shape(query: str) -> str:
    """A query with its plainest numbers and strings replaced by others: equal for most queries that differ in their
    values only, and parsed to the same. What has comments or escapes in it stays as it is.
    """
    return query if _INTRICATE.search(query) else _PLAIN.sub(_same_for_all, query)


def _same_for_all(match: re.Match[str]) -> str:
    return match["name"] or ("''" if match["string"] else "0")


def parse_statement(query: str, system: str, *, cut: bool = False) -> Statement:
    """Take a query apart; `system` is its db.system.name, `cut` says that more would follow."""
    dialect = _DIALECTS.get(system, _DEFAULT_DIALECT)
    if system not in _DIALECTS and "\\" in query:
        return Statement("", "", "", "")  # whether it escapes anything depends on the system
    tokens = _tokenize(query, dialect, cut=cut)
    if cut and tokens and tokens[-1].token_type.name not in _LITERALS:
        tokens = tokens[:-1]  # a word that may be half
    words = _words(tokens)
    operations, tables, told = _outline(tokens, words)
    text = _without_values(query, tokens, dialect)
    if cut:
        text = f"{text} {CUT_MARK}" if text else ""
    collection = next(iter(tables)) if len(tables) == 1 and not cut else ""
    return Statement(text, _summary(told), operations[0] if operations else "", collection)


@cache
def _tokenizer(dialect: str) -> Any:
    """Make the tokenizer of a dialect. sqlglot is loaded with the first query: most machines' spans have none."""
    from sqlglot.dialects.dialect import Dialect
    from sqlglot.errors import TokenError

    # Takes all statements apart, also those that sqlglot itself would pass on as they are.
    whole = new_class(
        "Whole",
        (Dialect.get_or_raise(dialect).tokenizer_class,),
        exec_body=lambda names: names.update(COMMANDS=set()),
    )
    return whole(dialect=dialect), TokenError


def _tokenize(query: str, dialect: str, *, cut: bool) -> Sequence[Token]:
    """Tokens of a query; none where it can't be told where one ends."""
    tokenizer, error = _tokenizer(dialect)
    for ending in _ENDINGS if cut else ("",):
        try:
            tokens: Sequence[Token] = tokenizer.tokenize(query + ending)
        except error:
            continue
        return tokens
    return ()


def _words(tokens: Sequence[Token]) -> list[str]:
    """The tokens' texts in upper case, "" for names in quotes and for values, which are never keywords."""
    return [
        "" if (name := token.token_type.name) in _LITERALS or name == "IDENTIFIER" else token.text.upper()
        for token in tokens
    ]


def _outline(tokens: Sequence[Token], words: list[str]) -> tuple[list[str], dict[str, None], list[str]]:
    """The operations of a query, its tables, and both in their order as they are told."""
    operations: list[str] = []
    tables: dict[str, None] = {}
    told: list[str] = []
    at = 0
    begins = True
    while at < len(tokens):
        word = words[at]
        name = tokens[at].token_type.name
        if begins and word in _OPERATIONS:
            operations.append(word)
            told.append(word)
            if word in ("CREATE", "ALTER", "DROP", "TRUNCATE"):
                kind = next((one for one in words[at + 1 : at + 5] if one in _OBJECTS), "")
                if kind:
                    told.append(kind)
                if kind != "TABLE" and kind in _OBJECTS:
                    at += 1
                    begins = False
                    continue
        elif word in _NESTED and at and words[at - 1] not in ("FOR", "ON", "KEY", "DO", "THEN", "NO"):
            operations.append(word)
            told.append(word)
        begins = name == "SEMICOLON" or (begins and word in ("WITH", "("))
        if word in _TABLE_FOLLOWS and not (
            word == "UPDATE" and at and words[at - 1] in ("FOR", "KEY", "ON", "DO")
        ):
            at = _take_tables(tokens, words, at + 1, tables, told)
            continue
        at += 1
    return operations, tables, told


def _take_tables(
    tokens: Sequence[Token], words: list[str], at: int, tables: dict[str, None], told: list[str]
) -> int:
    """Take the tables that are named from here on, and give the place behind them."""
    while True:
        while at < len(tokens) and words[at] in _BEFORE_TABLE:
            at += 1
        start = at
        while at < len(tokens) and _is_name(tokens, words, at):
            at += 1
            if at + 1 < len(tokens) and tokens[at].token_type.name == "DOT":
                at += 1
                continue
            break
        if at == start:
            return at
        if at < len(tokens) and words[at] == "(" and words[start - 1] in ("FROM", "JOIN", "USING"):
            return at  # a function, or names of columns
        name = "".join(token.text for token in tokens[start:at])
        tables[name] = None
        told.append(name)
        # An alias, and a comma with another table behind.
        if at < len(tokens) and words[at] == "AS":
            at += 1
        if at + 1 < len(tokens) and tokens[at].token_type.name in _NAMES and words[at + 1] == ",":
            at += 1
        if at >= len(tokens) or words[at] != "," or words[start - 1] == "INTO":
            return at
        at += 1


def _is_name(tokens: Sequence[Token], words: list[str], at: int) -> bool:
    """Whether a table's name may be here: a word that isn't a keyword which follows the place of one."""
    token = tokens[at]
    if token.token_type.name in _NAMES:
        return True
    text = words[at]
    return (
        bool(text)
        and (text[0].isalpha() or text[0] == "_")
        and text not in _AFTER_TABLE
        and text not in _NESTED
    )


def _without_values(query: str, tokens: Sequence[Token], dialect: str) -> str:
    """A query's text with `?` for each literal, without comments, and with single spaces."""
    parts: list[str] = []
    end = -1
    for index, token in enumerate(tokens):
        start = token.start
        if index and start > end + 1:
            parts.append(" ")
        if token.token_type.name not in _LITERALS or _is_parameter(tokens, index, dialect):
            parts.append(query[start : token.end + 1])
        else:
            parts.append("?")
        end = token.end
    return "".join(parts)


def _is_parameter(tokens: Sequence[Token], index: int, dialect: str) -> bool:
    """Whether a number is that of a parameter: `$1`, `?1`, in Oracle and SQLite `:1`."""
    token = tokens[index]
    if not index or token.token_type.name != "NUMBER" or tokens[index - 1].end + 1 != token.start:
        return False
    before = tokens[index - 1].token_type.name
    return before in _NUMBERED or (before == "COLON" and dialect in ("oracle", "sqlite"))


def _summary(told: Sequence[str]) -> str:
    """As many of the words as the summary has room for."""
    summary = ""
    for word in told:
        longer = f"{summary} {word}" if summary else word
        if len(longer) > _SUMMARY_MAX:
            break
        summary = longer
    return summary
