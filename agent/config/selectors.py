"""Selectors, which processes are meant, and rules, what is different for those that are."""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import translate
from typing import Any, Protocol

from agent.config.header_names import HEADER_NAMES
from agent.config.values import (
    PAIRS,
    TEXT,
    WORDS,
    Kind,
    Pairs,
    PlacedError,
    fraction,
    one_of,
    parse_tables,
    whole,
)

HEADERS_MAX = 240
"""Headers that all rules together may name: there is room in the kernel for these before and after a reload."""


class Sampler(enum.Enum):
    """The samplers of OTEL_TRACES_SAMPLER that can be decided in the kernel."""

    ALWAYS_ON = "always_on"
    ALWAYS_OFF = "always_off"
    TRACEIDRATIO = "traceidratio"
    PARENTBASED_ALWAYS_ON = "parentbased_always_on"
    PARENTBASED_ALWAYS_OFF = "parentbased_always_off"
    PARENTBASED_TRACEIDRATIO = "parentbased_traceidratio"


class Subject(Protocol):
    """What a selector looks at. All but `exe` may take a read of /proc, so it is asked for only where it counts."""

    @property
    def exe(self) -> str:
        """The executable's path."""

    @property
    def cmdline(self) -> str:
        """The arguments, joined by blanks."""

    @property
    def user(self) -> str:
        """The name of the user that it acts as."""

    @property
    def uid(self) -> int | None:
        """The number of that user; None where it isn't known."""

    @property
    def unit(self) -> str:
        """The systemd service that it belongs to, such as web@1.service; "" if none."""

    @property
    def ports(self) -> frozenset[int]:
        """The TCP ports that it listens on."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment that it was started with."""


@functools.lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob), re.DOTALL)


def _is_like(text: str, glob: str) -> bool:
    return _pattern(glob).match(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A pattern over processes. It matches when everything it names matches; what it leaves out matches all.

    `exe`, `cmdline`, `unit` and the values of `env` are globs as in the shell, except that * crosses slashes; case
    counts. `user` is a name or a number, `port` a TCP port that the process listens on.
    """

    exe: str | None = None
    cmdline: str | None = None
    unit: str | None = None
    user: str | None = None
    port: int | None = None
    env: Pairs = ()

    def matches(self, process: Subject) -> bool:
        """Say whether a process is meant. What is cheap to find out is looked at first."""
        return (
            (self.exe is None or _is_like(process.exe, self.exe))
            and (self.user is None or self.user in (process.user, str(process.uid)))
            and (self.cmdline is None or _is_like(process.cmdline, self.cmdline))
            and (self.unit is None or _is_like(process.unit, self.unit))
            and all(
                name in process.environ and _is_like(process.environ[name], value) for name, value in self.env
            )
            and (self.port is None or self.port in process.ports)
        )

    def matches_path(self, exe: str) -> bool | None:
        """Say whether processes of this executable are meant; None where more than the path has to be known."""
        if self.exe is not None and not _is_like(exe, self.exe):
            return False
        return True if self == Selector(exe=self.exe) else None

    def __str__(self) -> str:
        return _table(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Selector):
    """What is different for the processes that match. What is None is as everywhere else."""

    service_name: str | None = None
    attributes: Pairs | None = None
    sampler: Sampler | None = None
    sampler_arg: float | None = None
    libraries: tuple[str, ...] | None = None
    libraries_disabled: tuple[str, ...] | None = None
    request_headers: tuple[str, ...] | None = None
    response_headers: tuple[str, ...] | None = None

    def selector(self) -> Selector:
        """Give the pattern alone."""
        return Selector(**{one.name: getattr(self, one.name) for one in fields(Selector)})

    def matches_path(self, exe: str) -> bool | None:
        """Say whether processes of this executable are meant; None where more than the path has to be known."""
        return self.selector().matches_path(exe)


def _some_text(value: object) -> str:
    text = TEXT.from_toml(value)
    if not text:
        raise ValueError("wants text that is not empty")
    return text


_TEXT = Kind(name="text", from_toml=_some_text, from_text=None, to_toml=TEXT.to_toml)
_SELECTOR: dict[str, Kind[Any]] = {
    "exe": _TEXT,
    "cmdline": _TEXT,
    "unit": _TEXT,
    "user": _TEXT,
    "port": whole(at_most=65535),
    "env": PAIRS,
}
_SETTINGS: dict[str, Kind[Any]] = {
    "service_name": _TEXT,
    "attributes": PAIRS,
    "sampler": one_of(Sampler),
    "sampler_arg": fraction(),
    "libraries": WORDS,
    "libraries_disabled": WORDS,
    "request_headers": HEADER_NAMES,
    "response_headers": HEADER_NAMES,
}


def _table(selector: Selector) -> str:
    """Write a selector or a rule as an inline table."""
    cells = [
        f"{name} = {kind.to_toml(value)}"
        for name, kind in (_SELECTOR | _SETTINGS).items()
        if (value := getattr(selector, name, None)) not in (None, ())
    ]
    return "{ " + ", ".join(cells) + " }" if cells else "{}"


def _selectors(value: object) -> tuple[Selector, ...]:
    example = '{ exe = "/usr/bin/*", user = "www-data" }'
    return tuple(Selector(**table) for table in parse_tables(value, _SELECTOR, "selector", example))


def _rules(value: object) -> tuple[Rule, ...]:
    example = '{ unit = "shop*.service", service_name = "shop" }'
    tables = parse_tables(value, _SELECTOR | _SETTINGS, "rule", example)
    for number, table in enumerate(tables):
        if not table.keys() & _SETTINGS.keys():
            raise PlacedError(
                (number,), f"rule {number + 1} changes nothing; it may set {', '.join(_SETTINGS)}"
            )
    headers = sum(
        len(table.get(f"{message}_headers", ())) for table in tables for message in ("request", "response")
    )
    if headers > HEADERS_MAX:
        raise ValueError(f"the rules name {headers} headers in all; {HEADERS_MAX} are possible")
    return tuple(Rule(**table) for table in tables)


def _tables(value: tuple[Selector, ...]) -> str:
    return "[" + ", ".join(map(_table, value)) + "]"


SELECTORS: Kind[tuple[Selector, ...]] = Kind(
    name="list of selectors", from_toml=_selectors, from_text=None, to_toml=_tables
)
RULES: Kind[tuple[Rule, ...]] = Kind(name="list of rules", from_toml=_rules, from_text=None, to_toml=_tables)
