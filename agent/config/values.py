"""Kinds of values a setting can have: each reads TOML, reads text, and writes TOML back.

A kind is what turns `"250ms"` into 0.25 and says what it wanted when it can't. Files give typed values, the
environment and flags give text; a kind reads both, and never takes one for the other (`queue_size = "5"` in a
file is a mistake worth telling).
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeVar
from urllib.parse import unquote, urlsplit

from agent.offsets.schedule import calendar

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NUMBER_AND_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
# A gRPC metadata key: lower-case letters, digits, and - _ . (gRPC over HTTP/2, "Header-Name").
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[T]):
    """How values of one kind are read and written.

    `from_toml` takes what the TOML parser gave, `from_text` an environment variable's or a flag's text (None
    where text can't hold such a value); both raise ValueError with a sentence that completes
    "export.timeout:". `to_toml` is the inverse, used by the default file and by `--show-config`.
    """

    name: str
    from_toml: Callable[[object], T]
    from_text: Callable[[str], T] | None
    to_toml: Callable[[T], str]


class PlacedError(ValueError):
    """A mistake inside a list or table; `at` is where: the number of an element, from 0, and perhaps a key of it."""

    def __init__(self, at: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.at = at


def toml_string(text: str) -> str:
    """Write a TOML basic string: JSON's escapes are TOML's too, but TOML wants DEL escaped as well."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _wanted(what: str, value: object) -> ValueError:
    return ValueError(f"wants {what}, not {json.dumps(value, default=str, ensure_ascii=False)}")


# --- text, true or false, numbers ---------------------------------------------------------------------------


def _text_from_toml(value: object) -> str:
    if not isinstance(value, str):
        raise _wanted("text in quotes", value)
    return value


def _flag_from_toml(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wanted("true or false", value)
    return value


def _flag_from_text(text: str) -> bool:
    match text.strip().lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off":
            return False
    raise _wanted("true or false", text)


TEXT: Kind[str] = Kind(name="text", from_toml=_text_from_toml, from_text=str, to_toml=toml_string)
FLAG: Kind[bool] = Kind(
    name="true or false",
    from_toml=_flag_from_toml,
    from_text=_flag_from_text,
    to_toml=lambda value: "true" if value else "false",
)


def whole(*, at_least: int = 1, at_most: int = 2**31 - 1) -> Kind[int]:
    """Make the kind of a whole number within limits, both included."""
    what = f"a whole number from {at_least} to {at_most}"

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
            raise _wanted(what, value)
        return value

    def from_text(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise _wanted(what, text) from None
        return check(value)

    return Kind(name="whole number", from_toml=check, from_text=from_text, to_toml=str)


def fraction() -> Kind[float]:
    """Make the kind of a number from 0 to 1."""
    what = "a number from 0 to 1"

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise _wanted(what, value)
        return float(value)

    def from_text(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise _wanted(what, text) from None
        return check(value)

    return Kind(name="number from 0 to 1", from_toml=check, from_text=from_text, to_toml=str)


# --- durations and sizes ------------------------------------------------------------------------------------


def duration(*, at_least: float = 0.0, at_most: float = 86400.0) -> Kind[float]:
    """Make the kind of a time in seconds: a number of seconds, or text with a unit (ms, s, m, h)."""
    what = f'a time such as 2, "2s" or "250ms", from {at_least:g} to {at_most:g} seconds'

    def check(value: object, given: object) -> float:
        # NaN and infinities fail the comparison or the upper limit.
        if isinstance(value, bool) or not isinstance(value, int | float) or not at_least <= value <= at_most:
            raise _wanted(what, given)
        return float(value)

    def from_text(text: str) -> float:
        match = _NUMBER_AND_UNIT.fullmatch(text.strip())
        unit = _DURATION_UNITS.get(match[2] or "s") if match else None
        if match is None or unit is None:
            raise _wanted(what, text)
        # Rounded to a microsecond, so that "1.1ms" comes out as 0.0011 and can be shown again.
        return check(round(float(match[1]) * unit, 6), text)

    def from_toml(value: object) -> float:
        return from_text(value) if isinstance(value, str) else check(value, value)

    def to_toml(value: float) -> str:
        milliseconds = round(value * 1000, 3)
        return f'"{value:g}s"' if value >= 1 or value == 0 else f'"{milliseconds:g}ms"'

    return Kind(name="duration", from_toml=from_toml, from_text=from_text, to_toml=to_toml)


def size(*, at_least: int, at_most: int) -> Kind[int]:
    """Make the kind of a number of bytes: a whole number, or text with a unit (KiB, MiB, GiB)."""
    what = f'a size such as "8MiB", from {_size_text(at_least)} to {_size_text(at_most)}'

    def check(value: object, given: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
            raise _wanted(what, given)
        return value

    def from_text(text: str) -> int:
        match = _NUMBER_AND_UNIT.fullmatch(text.strip())
        unit = _SIZE_UNITS.get(re.sub(r"i?B$", "", match[2])) if match else None
        if match is None or unit is None:
            raise _wanted(what, text)
        return check(int(float(match[1]) * unit), text)

    def from_toml(value: object) -> int:
        return from_text(value) if isinstance(value, str) else check(value, value)

    return Kind(
        name="size", from_toml=from_toml, from_text=from_text, to_toml=lambda value: f'"{_size_text(value)}"'
    )


def _size_text(value: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= factor and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


# --- one of a few words -------------------------------------------------------------------------------------


def one_of(choices: type[E], *, aliases: Mapping[str, E] | None = None) -> Kind[E]:
    """Make the kind of a word among the values of an enum; `aliases` are read too, but never written."""
    words = {str(choice.value): choice for choice in choices} | dict(aliases or {})
    what = "one of " + ", ".join(str(choice.value) for choice in choices)

    def from_text(text: str) -> E:
        try:
            return words[text.strip().lower()]
        except KeyError:
            raise _wanted(what, text) from None

    def from_toml(value: object) -> E:
        if not isinstance(value, str):
            raise _wanted(what, value)
        return from_text(value)

    return Kind(name=what, from_toml=from_toml, from_text=from_text, to_toml=lambda value: f'"{value.value}"')


def some_of(choices: type[E]) -> Kind[tuple[E, ...]]:
    """Make the kind of a list of words among the values of an enum; the text `none` is the empty list."""
    one = one_of(choices)
    what = "a list of " + ", ".join(str(choice.value) for choice in choices)

    def from_words(words: tuple[str, ...], given: object) -> tuple[E, ...]:
        try:
            return tuple(dict.fromkeys(one.from_toml(word) for word in words))
        except ValueError:
            raise _wanted(what, given) from None

    def from_text(text: str) -> tuple[E, ...]:
        words = _words_from_text(text)
        return () if words == ("none",) else from_words(words, text)

    return Kind(
        name=what,
        from_toml=lambda value: from_words(_words_from_toml(value), value),
        from_text=from_text,
        to_toml=lambda value: WORDS.to_toml(tuple(str(choice.value) for choice in value)),
    )


# --- lists and tables of text -------------------------------------------------------------------------------


def _words_from_toml(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wanted('a list of texts such as ["a", "b"]', value)
    return tuple(value)


def _words_from_text(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


WORDS: Kind[tuple[str, ...]] = Kind(
    name="list of texts",
    from_toml=_words_from_toml,
    from_text=_words_from_text,
    to_toml=lambda value: "[" + ", ".join(map(toml_string, value)) + "]",
)


def checked_words(name: str, check: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Kind[tuple[str, ...]]:
    """Make the kind of a list of texts that has to pass a check, which may change it or raise ValueError."""
    return Kind(
        name=name,
        from_toml=lambda value: check(_words_from_toml(value)),
        from_text=lambda text: check(_words_from_text(text)),
        to_toml=WORDS.to_toml,
    )


Pairs = tuple[tuple[str, str], ...]


def parse_pairs(text: str) -> Pairs:
    """Read the `key=value,key=value` of OTEL_RESOURCE_ATTRIBUTES and OTEL_EXPORTER_OTLP_HEADERS.

    Keys and values are percent-decoded (OpenTelemetry resource SDK, "Specifying resource information via an
    environment variable"; OTLP exporter, "Specifying headers via environment variables"). A later key
    replaces an earlier one. Raises ValueError for the whole text if any part of it is wrong, as the
    specification asks. The message doesn't repeat the text: it may hold a secret.
    """
    pairs: dict[str, str] = {}
    for number, part in enumerate(text.split(","), start=1):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"wants key=value pairs with commas between, and pair {number} isn't one")
        try:
            pairs[unquote(name.strip(), errors="strict")] = unquote(value.strip(), errors="strict")
        except UnicodeDecodeError:
            raise ValueError(f"pair {number}: the percent-encoding doesn't give valid UTF-8") from None
    return tuple(pairs.items())


def _pairs_from_toml(value: object) -> Pairs:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        # The values may be secrets: name the keys alone.
        raise ValueError('wants a table of texts such as { key = "value" }')
    return tuple(value.items())


def _pairs_to_toml(value: Pairs) -> str:
    return (
        "{ " + ", ".join(f"{toml_string(name)} = {toml_string(text)}" for name, text in value) + " }"
        if value
        else "{}"
    )


PAIRS: Kind[Pairs] = Kind(
    name="table of texts", from_toml=_pairs_from_toml, from_text=parse_pairs, to_toml=_pairs_to_toml
)


def check_headers(pairs: Pairs) -> Pairs:
    """Make gRPC metadata of header pairs: names in lower case. Its ValueErrors repeat no value."""
    checked = []
    for name, value in pairs:
        key = name.lower()
        if not _HEADER_NAME.fullmatch(key):
            raise ValueError(f"{name!r} isn't a header's name (letters, digits, - _ .)")
        if key.startswith("grpc-") or key.endswith("-bin"):
            raise ValueError(f"the header {name!r} is reserved by gRPC")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of header {name!r} has characters other than printable ASCII")
        checked.append((key, value))
    return tuple(checked)


HEADERS: Kind[Pairs] = Kind(
    name="table of texts",
    from_toml=lambda value: check_headers(_pairs_from_toml(value)),
    from_text=lambda text: check_headers(parse_pairs(text)),
    to_toml=_pairs_to_toml,
)


# --- lists of tables ---------------------------------------------------------------------------------------


def parse_tables(
    value: object, keys: Mapping[str, Kind[Any]], what: str, example: str
) -> list[dict[str, Any]]:
    """Read a list of tables. Raises ValueError (PlacedError) that says in which element the mistake is."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError(f"wants a list of tables such as [{example}]")
    parsed = []
    for number, table in enumerate(value):
        place = f"{what} {number + 1}"
        if not table:
            raise PlacedError((number,), f"{place} is empty; write {example}")
        for name in table:
            if name not in keys:
                close = get_close_matches(name, keys, n=1, cutoff=0.6)
                hint = f"did you mean {close[0]!r}?" if close else f"it may have {', '.join(keys)}"
                raise PlacedError((number, name), f"{place} has the key {name!r}; {hint}")
        values = {}
        for name, given in table.items():
            try:
                values[name] = keys[name].from_toml(given)
            except ValueError as error:
                raise PlacedError((number, name), f"{place}: {name} {error}") from None
        parsed.append(values)
    return parsed


# --- the collector's address --------------------------------------------------------------------------------


def _endpoint_from_text(text: str) -> str:
    text = text.strip()
    if text.startswith("unix:"):
        if not text.removeprefix("unix:").removeprefix("//").startswith("/"):
            raise ValueError(f"{text!r} names no socket; write unix:/run/collector.sock")
        return text
    try:
        url = urlsplit(text if "://" in text else f"//{text}")
        _ = url.port
    except ValueError as error:
        raise ValueError(f"{text!r} isn't an address: {error}") from None
    if url.scheme not in ("http", "https", ""):
        raise ValueError(f"{text!r}: the scheme is http, https (TLS) or unix, not {url.scheme}")
    if url.username is not None or url.password is not None:
        raise ValueError("credentials don't belong in the address; put them in export.headers_file")
    if not url.hostname or re.search(r"\s", url.netloc):
        raise ValueError(f"{text!r} names no host; write http://localhost:4317")
    if url.query or url.fragment:
        raise ValueError(f"{text!r} has a query or a fragment, which OTLP knows nothing of; leave it out")
    return text.rstrip("/")


OPTIONAL_ENDPOINT: Kind[str] = Kind(
    name="address",
    from_toml=lambda value: _endpoint_from_text(text) if (text := _text_from_toml(value)) else "",
    from_text=lambda text: _endpoint_from_text(text) if text.strip() else "",
    to_toml=toml_string,
)
ENDPOINT: Kind[str] = Kind(
    name="address",
    from_toml=lambda value: _endpoint_from_text(_text_from_toml(value)),
    from_text=_endpoint_from_text,
    to_toml=toml_string,
)


# --- what offset tables are fetched by ------------------------------------------------------------------------


def _https_from_text(text: str) -> str:
    text = text.strip()
    try:
        url = urlsplit(text)
        usable = url.scheme == "https" and bool(url.hostname) and url.port != 0
    except ValueError as error:
        raise ValueError(f"{text!r} isn't an address: {error}") from None
    if text and not usable:
        raise ValueError(f"{text!r} isn't an address that begins with https://")
    if url.username is not None or url.password is not None:
        raise ValueError("credentials don't belong in the address")
    return text


HTTPS: Kind[str] = Kind(
    name="https address",
    from_toml=lambda value: _https_from_text(_text_from_toml(value)),
    from_text=_https_from_text,
    to_toml=toml_string,
)


def _schedule_from_text(text: str) -> str:
    calendar(text)
    return text.strip()


SCHEDULE: Kind[str] = Kind(
    name="schedule",
    from_toml=lambda value: _schedule_from_text(_text_from_toml(value)),
    from_text=_schedule_from_text,
    to_toml=toml_string,
)
