"""Configuration files: TOML into given values, each with the line it stands on.

TOML parsers keep no positions, so the lines are found in the text itself, after the parser has accepted it:
that leaves only well-formed statements to tell apart.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from agent.config.settings import BY_PATH, SECTIONS, settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_FILE_SIZE = 1 << 20

_TOKEN = re.compile(
    r'''(?P<space>[ \t\r]+|\#[^\n]*)
      |(?P<newline>\n)
      |(?P<multiline>"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5})
      |(?P<quoted>"(?:\\.|[^"\\\n])*"|'[^'\n]*')
      |(?P<open>[\[{])|(?P<close>[\]}])|(?P<dot>\.)|(?P<equals>=)
      |(?P<bare>[A-Za-z0-9_-]+)
      |(?P<other>.)''',
    re.VERBOSE | re.DOTALL,
)
_ERROR_PLACE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)")


KeyPath: TypeAlias = tuple[str | int, ...]
"""The way to a value: keys, and numbers of a list's elements, from 0."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in the configuration: where, and a sentence that names the remedy."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True)
class Given:
    """A value somebody gave: for which setting, where, and as TOML or as text."""

    path: str
    value: object
    place: str
    is_text: bool = False
    inside: Mapping[KeyPath, str] = field(default_factory=dict)

    def place_of(self, at: KeyPath) -> str:
        """Say where a part of the value stands, as exactly as is known."""
        while at and at not in self.inside:
            at = at[:-1]
        return self.inside.get(at, self.place)


@dataclass(slots=True)
class Layer:
    """What one source gives, and what is wrong with it."""

    given: list[Given] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def key_lines(text: str) -> dict[KeyPath, int]:
    """Find the line (from 1) of every key, table header and table in a list in valid TOML.

    A list of tables is found by its first one's line as well. Keys inside inline tables and arrays aren't found:
    their enclosing key is, or their table.
    """
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    value: KeyPath = ()
    parts: list[str] = []
    depth, line, elements = 0, 1, 0
    in_value = in_header = in_list = False
    for match in _TOKEN.finditer(text + "\n"):
        kind, token = match.lastgroup, match[0]
        if kind == "newline" and depth == 0:
            if in_header:
                table = _table_path(parts, counts, of_list=in_list)
                lines.setdefault(tuple(parts) if in_list else table, line)
                lines.setdefault(table, line)
            parts, in_value, in_header, in_list = [], False, False, False
        elif kind == "open":
            in_list = in_list or (in_header and depth == 1)
            in_header = in_header or not (in_value or parts)
            if in_value and depth == 1 and token.startswith("{"):
                lines.setdefault((*value, elements), line)
                elements += 1
            depth += 1
        elif kind == "close":
            depth -= 1
        elif not in_value:
            if kind == "bare":
                parts.append(token)
            elif kind == "quoted":
                parts.append(_unquote(token))
            elif kind == "equals":
                value, elements = (*table, *parts), 0
                lines.setdefault(value, line)
                in_value = True
        line += token.count("\n")
    return lines


def _table_path(parts: Sequence[str], counts: dict[KeyPath, int], *, of_list: bool) -> KeyPath:
    """Give the way to the table that a header begins: one of a list, or below the last one of a list, or neither.

    `counts` has how many tables each list has.
    """
    path: KeyPath = ()
    for part in parts[:-1]:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path] - 1)
    path = (*path, *parts[-1:])
    if of_list:
        counts[path] = counts.get(path, 0) + 1
        return (*path, counts[path] - 1)
    return path


def _unquote(token: str) -> str:
    """Read a quoted key by the TOML parser itself."""
    value = tomllib.loads(f"key = {token}")["key"]
    return str(value)


def unreadable(error: OSError) -> str:
    """Say that a file of the configuration can't be read, and what helps where that is a matter of rights."""
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return "may not be read by you; use sudo, or join the group gospan, which may"
    return f"can't be read: {error.strerror}"


def read_file(path: Path) -> Layer:
    """Read one configuration file. Nothing is raised: what is wrong with it is in the layer's problems."""
    layer = Layer()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        layer.problems.append(Problem(str(path), unreadable(error)))
        return layer
    if len(data) > MAX_FILE_SIZE:
        layer.problems.append(
            Problem(str(path), f"is larger than {MAX_FILE_SIZE >> 20} MiB; that can't be right")
        )
        return layer
    try:
        text = data.decode()
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        layer.problems.append(Problem(f"{path}:{line}", "isn't UTF-8 text"))
        return layer
    except tomllib.TOMLDecodeError as error:
        layer.problems.append(_syntax_problem(path, text, str(error)))
        return layer
    except RecursionError:
        layer.problems.append(Problem(str(path), "is nested too deeply; no setting needs that"))
        return layer
    # TOML takes \r\n for a newline, as do the tokens above.
    _collect(layer, tables, path, key_lines(text))
    return layer


def _syntax_problem(path: Path, text: str, message: str) -> Problem:
    """Move the place out of the parser's message, into the form that all problems have."""
    match = _ERROR_PLACE.search(message)
    if match is None:
        return Problem(str(path), f"isn't valid TOML: {message}")
    line = match[1] or text.count("\n") + 1
    return Problem(f"{path}:{line}", f"isn't valid TOML: {message[: match.start()]}")


def _collect(layer: Layer, tables: Mapping[str, object], path: Path, lines: Mapping[KeyPath, int]) -> None:
    def place(*parts: str | int) -> str:
        while parts and parts not in lines:
            parts = parts[:-1]
        return f"{path}:{lines[parts]}" if parts else str(path)

    for section, table in tables.items():
        if section in SECTIONS and isinstance(table, dict):
            _collect_section(layer, section, table, path, lines, place)
        elif section in SECTIONS:
            problem = f"{section} is a section; write [{section}] on a line of its own, and its keys below"
            layer.problems.append(Problem(place(section), problem))
        else:
            problem = unknown_section(section, is_table=isinstance(table, dict))
            layer.problems.append(Problem(place(section), problem))


def _collect_section(
    layer: Layer,
    section: str,
    table: Mapping[str, object],
    path: Path,
    lines: Mapping[tuple[str | int, ...], int],
    place: Callable[..., str],
) -> None:
    above = tuple(section.split("."))
    key_path: tuple[str, ...]
    for name, value in table.items():
        full, key_path = f"{section}.{name}", (*above, name)
        if full in BY_PATH:
            inside: dict[tuple[str | int, ...], str] = {
                key[len(key_path) :]: f"{path}:{line}"
                for key, line in lines.items()
                if key[: len(key_path)] == key_path and len(key) > len(key_path)
            }
            layer.given.append(Given(full, value, place(*key_path), inside=inside))
        elif full in SECTIONS and isinstance(value, dict):
            _collect_section(layer, full, value, path, lines, place)
        else:
            layer.problems.append(Problem(place(*key_path), unknown_key(section, name)))


def unknown_section(name: str, *, is_table: bool) -> str:
    """Say that there is no such section, and which one or which key was probably meant."""
    if not is_table:
        homes = [setting.section for setting in settings() if setting.name == name]
        hint = (
            f"; did you mean it in [{homes[0]}]?"
            if homes
            else "; every key stands in a section such as [export]"
        )
        return f"unknown key {name!r} outside of any section{hint}"
    return f"unknown section [{name}]{nearest(name, list(SECTIONS), '[{}]')}"


def unknown_key(section: str, name: str) -> str:
    """Say that a section has no such key, and which one was probably meant."""
    here = [setting.name for setting in settings() if setting.section == section]
    elsewhere = [setting.section for setting in settings() if setting.name == name]
    if not get_close_matches(name, here) and elsewhere:
        return f"unknown key {name!r} in [{section}]; it belongs in [{elsewhere[0]}]"
    return f"unknown key {name!r} in [{section}]{nearest(name, here, '{!r}')}"


def nearest(name: str, names: list[str], form: str = "{}") -> str:
    """Complete a sentence about a wrong name with the nearest right one, or with all if none is near."""
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {form.format(close[0])}?"
    return "; there are " + ", ".join(form.format(each) for each in names)
