"""What HTTP says in its own syntaxes, taken apart: targets, authorities, forwarding proxies, patterns."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

KNOWN_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
"""http.request.method has these values, else _OTHER (OpenTelemetry HTTP conventions; RFC 9110, RFC 5789 and QUERY)."""

ROUTER_SERVE_MUX = 1
ROUTER_CHI = 3
"""Whose words a route is in (enum http_router, bpf/http_server.h); those of the others are templates as they are."""

DEFAULT_PORTS = {"http": 80, "https": 443}

REDACTED = "REDACTED"
CREDENTIALS = f"{REDACTED}:{REDACTED}@"
"""Stand for a value that is secret, and for a user and a password in a URL (OpenTelemetry conventions)."""

_SECRETS = (
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
)
"""The query parameters whose values the conventions have redacted (attribute url.query), now and in former versions."""

_IN_SECRETS = ("ig", "X-Amz-", "AWSAccessKeyId")
"""One of these is in each of their names."""


def _pattern_of(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"(?P<name>(?:^|&)(?:{'|'.join(map(re.escape, names))})=)[^&]+")


class _Secrets:
    """What is redacted, by all encoders alike: the agent's configuration says it once, at its start."""

    def __init__(self) -> None:
        self.parts: tuple[str, ...] = _IN_SECRETS
        self.pattern = _pattern_of(_SECRETS)


_secrets = _Secrets()

_FORWARDED_PAIR = re.compile(
    r'\s*(?P<name>[!-~]+?)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^;,"]*))\s*(?P<end>[;,]|$)'
)


class Target(NamedTuple):
    """A request's target; the query without its question mark, "" where there is none."""

    path: str
    query: str


class Authority(NamedTuple):
    """A host and its port, None where there is none. IPv6 addresses stand without brackets."""

    host: str
    port: int | None


class Forwarded(NamedTuple):
    """What the proxy nearest to the client said of the request; "" where it said nothing."""

    client: str
    host: str
    proto: str


def text_of(raw: bytes) -> str:
    """Decode what came over the network; what is not UTF-8 is replaced, as OTLP takes nothing else."""
    return raw.decode("utf-8", "replace")


def parse_target(target: str) -> Target:
    """Take a request-target apart, in any of its forms (RFC 9112, 3.2): origin, absolute, authority, asterisk."""
    if target.startswith("/") or target == "*":
        path, _, query = target.partition("?")
        return Target(path, query)
    scheme, found, rest = target.partition("://")
    if not found or not scheme.isalnum():
        return Target("", "")  # CONNECT host:port has neither
    before, _, query = rest.partition("?")
    _, slash, path = before.partition("/")
    return Target(slash + path if slash else "/", query)


def redact_also(names: Iterable[str]) -> None:
    """Have the values of these query parameters hidden too, besides those that the conventions name."""
    names = tuple(filter(None, names))
    _secrets.parts = (*_IN_SECRETS, *names)
    _secrets.pattern = _pattern_of((*_SECRETS, *names))


def redact_query(query: str) -> str:
    """Hide the values of what the conventions name as secrets, and what redact_also does."""
    for part in _secrets.parts:  # most have nothing of the kind: that is quicker to see
        if part in query:
            return _secrets.pattern.sub(rf"\g<name>{REDACTED}", query)
    return query


def parse_authority(text: str) -> Authority:
    """Take `host`, `host:port` or `[v6]:port` apart. Go's RemoteAddr has the same form."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") > 1:
        host, port = text, ""  # an IPv6 address without brackets
    else:
        host, _, port = text.partition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    return Authority(host, number if 0 < number < 65536 else None)


def is_address(text: str) -> bool:
    """Whether this is an IP address, with a zone or without."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_forwarded(value: str) -> Forwarded:
    """Read the first element of a Forwarded header (RFC 7239, 4); a damaged one says nothing from there on."""
    pairs: dict[str, str] = {}
    position = 0
    while match := _FORWARDED_PAIR.match(value, position):
        quoted = match["quoted"]
        text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else match["token"].strip()
        pairs.setdefault(match["name"].lower(), text)
        position = match.end()
        if match["end"] != ";":
            break
    return Forwarded(
        parse_authority(pairs.get("for", "")).host, pairs.get("host", ""), pairs.get("proto", "")
    )


def route_of_pattern(pattern: str) -> str:
    """The path of an http.ServeMux pattern, `[METHOD ][HOST]/[PATH]` (net/http/pattern.go, Go 1.22).

    The method and the host are told by attributes of their own.
    """
    _, _, rest = pattern.rpartition(" ")
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else ""


def route_of(router: int, route: str) -> str:
    """The http.route of what a router said (enum http_router, bpf/http_server.h); "" where it found none."""
    if router == ROUTER_SERVE_MUX:
        return route_of_pattern(route)
    return _joined_patterns(route) if router == ROUTER_CHI else route


def _joined_patterns(patterns: str) -> str:
    """What chi makes of the patterns of all routers on the way, side by side (context.go, v5.5.0: RoutePattern)."""
    while "/*/" in patterns:
        patterns = patterns.replace("/*/", "/")
    return patterns if patterns == "/" else patterns.removesuffix("//").removesuffix("/")
