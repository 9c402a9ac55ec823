"""Spans from made-up records of a net/http server, attribute by attribute."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.kernel import btf
from agent.kernel.formats import format_of
from agent.paths import object_file
from agent.spans.http_server import STATUS_UNKNOWN, http_server_encoder
from agent.spans.records import RECORD_REMOTE_PARENT, RECORD_UNFINISHED, TEXT_CUT
from tests.support.daemon import attributes

FORMAT = format_of(btf.read(str(object_file("net_http_server"))).struct("http_server_record"))
ENCODER = http_server_encoder(FORMAT)

# In the order in which the program appends them.
ORDER = [
    "remote_addr",
    "host",
    "user_agent",
    "forwarded_proto",
    "forwarded_host",
    "method",
    "target",
    "forwarded_for",
    "forwarded",
    "tracestate",
    "route",
]
USUAL = {"method": b"GET", "target": b"/", "host": b"example.com", "remote_addr": b"192.0.2.1:40000"}


def record(*, cut: tuple[str, ...] = (), flags: int = 0, parent: bytes = bytes(8), **given: Any) -> bytes:
    texts = dict.fromkeys(ORDER, b"") | USUAL
    numbers = {"status": 0, "protocol_major": 1, "protocol_minor": 1, "tls": 0, "hijacked": 0, "router": 1}
    for name, value in given.items():
        (texts if name in texts else numbers)[name] = value
    values: dict[str, Any] = {
        "header.flags": flags,
        "header.start": 1_000,
        "header.end": 3_000,
        "header.trace_id": bytes(range(16)),
        "header.span_id": b"spanspan",
        "header.parent_id": parent,
        **numbers,
    }
    tail = b""
    for name in ORDER:
        values[f"{name}.offset"] = FORMAT.size + len(tail)
        values[f"{name}.length"] = len(texts[name]) | (TEXT_CUT if name in cut else 0)
        tail += texts[name] + (b" " if name == "method" else b"")
    return FORMAT.pack(values) + tail


def span_of(*, clock: int = 0, **given: Any) -> Span:
    return Span.FromString(ENCODER(record(**given), clock))


@pytest.mark.parametrize(
    ("router", "said", "route"),
    [
        (1, b"GET example.com/a/{b}", "/a/{b}"),
        (1, b"", ""),
        (2, b"/a/{b:[ /]+}", "/a/{b:[ /]+}"),
        (3, b"/api/*/users/*/{id}", "/api/users/{id}"),
        (3, b"/api/*/*/", "/api"),
        (3, b"/", "/"),
    ],
)
def test_the_route_in_the_words_of_a_router(router: int, said: bytes, route: str) -> None:
    assert attributes(span_of(route=said, router=router)).get("http.route", "") == route


def test_an_ordinary_request() -> None:
    span = span_of(
        clock=1_000_000,
        method=b"POST",
        target=b"/items/7?a=b",
        route=b"POST /items/{id}",
        user_agent=b"curl/8",
        status=201,
        parent=b"parentid",
        flags=RECORD_REMOTE_PARENT,
        tracestate=b"a=1,b=2",
    )
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/items/{id}",
        "url.scheme": "http",
        "url.path": "/items/7",
        "url.query": "a=b",
        "server.address": "example.com",
        "server.port": 80,
        "user_agent.original": "curl/8",
        "network.protocol.version": "1.1",
        "http.response.status_code": 201,
        "client.address": "192.0.2.1",
        "network.peer.address": "192.0.2.1",
        "network.peer.port": 40000,
    }
    assert span.name == "POST /items/{id}"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1_001_000, 1_003_000)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (bytes(range(16)), b"spanspan", b"parentid")
    assert span.trace_state == "a=1,b=2"
    assert span.flags == 0x301
    assert span.status.code == Status.STATUS_CODE_UNSET


def test_a_root_has_no_parent_and_nothing_of_the_request_before() -> None:
    span_of(parent=b"parentid", flags=RECORD_REMOTE_PARENT, tracestate=b"a=1", target=b"/?q")
    span = span_of()
    assert span.parent_span_id == b""
    assert span.flags == 0x101
    assert span.trace_state == ""
    assert "url.query" not in attributes(span)


@pytest.mark.parametrize(
    ("status", "told", "error"),
    [
        (0, 200, None),
        (200, 200, None),
        (302, 302, None),
        (404, 404, None),
        (499, 499, None),
        (500, 500, "500"),
    ],
)
def test_status(status: int, told: int, error: str | None) -> None:
    span = span_of(status=status)
    has = attributes(span)
    assert has["http.response.status_code"] == told
    assert has.get("error.type") == error
    assert span.status.code == (Status.STATUS_CODE_ERROR if error else Status.STATUS_CODE_UNSET)
    assert span.status.message == ""


def test_a_panic_is_an_error_without_a_status_that_was_never_set() -> None:
    span = span_of(flags=RECORD_UNFINISHED)
    assert attributes(span)["error.type"] == "panic"
    assert "http.response.status_code" not in attributes(span)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span_of(flags=RECORD_UNFINISHED, status=200))["http.response.status_code"] == 200


def test_a_hijacked_connection_has_no_status() -> None:
    span = span_of(hijacked=1)
    assert "http.response.status_code" not in attributes(span)
    assert span.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize(
    ("method", "told", "name"),
    [(b"GET", "GET", "GET /r"), (b"get", "_OTHER", "HTTP /r"), (b"QUERY", "QUERY", "QUERY /r")],
)
def test_methods(method: bytes, told: str, name: str) -> None:
    span = span_of(method=method, route=b"/r")
    assert attributes(span)["http.request.method"] == told
    assert attributes(span).get("http.request.method_original") == (
        method.decode() if told == "_OTHER" else None
    )
    assert span.name == name


def test_without_a_route_the_name_is_the_method() -> None:
    assert span_of(target=b"/user/42").name == "GET"


@pytest.mark.parametrize(
    ("given", "scheme", "address", "port"),
    [
        ({}, "http", "example.com", 80),
        ({"tls": 1}, "https", "example.com", 443),
        ({"host": b"[::1]:8443", "tls": 1}, "https", "::1", 8443),
        ({"forwarded_proto": b"https"}, "https", "example.com", 443),
        ({"forwarded_proto": b"HTTPS, http"}, "https", "example.com", 443),
        ({"forwarded_proto": b"gopher"}, "http", "example.com", 80),
        ({"forwarded_host": b"public.example.com:444, inner"}, "http", "public.example.com", 444),
        (
            {
                "forwarded": b"for=198.51.100.1;host=first.example.com;proto=https",
                "forwarded_host": b"second",
            },
            "https",
            "first.example.com",
            443,
        ),
        ({"host": b""}, "http", None, None),
    ],
)
def test_server_and_scheme(given: dict[str, Any], scheme: str, address: str | None, port: int | None) -> None:
    has = attributes(span_of(**given))
    assert has["url.scheme"] == scheme
    assert has.get("server.address") == address
    assert has.get("server.port") == port


@pytest.mark.parametrize(
    ("given", "client"),
    [
        ({}, "192.0.2.1"),
        ({"forwarded_for": b"203.0.113.9, 10.0.0.1"}, "203.0.113.9"),
        ({"forwarded_for": b"[2001:db8::9]:4711"}, "2001:db8::9"),
        ({"forwarded_for": b"garbage"}, "192.0.2.1"),
        ({"forwarded": b"for=198.51.100.7", "forwarded_for": b"203.0.113.9"}, "198.51.100.7"),
        ({"forwarded": b"for=unknown", "forwarded_for": b"203.0.113.9"}, "203.0.113.9"),
        ({"forwarded": b"for=_hidden"}, "192.0.2.1"),
    ],
)
def test_the_client_may_be_behind_proxies_the_peer_is_not(given: dict[str, Any], client: str) -> None:
    has = attributes(span_of(**given))
    assert has["client.address"] == client
    assert has["network.peer.address"] == "192.0.2.1"
    assert has["network.peer.port"] == 40000


def test_a_peer_without_a_port_is_a_unix_socket() -> None:
    has = attributes(span_of(remote_addr=b"@"))
    assert not {"client.address", "network.peer.address", "network.peer.port"} & has.keys()
    has = attributes(span_of(remote_addr=b"@", forwarded_for=b"203.0.113.9"))
    assert has["client.address"] == "203.0.113.9"
    assert not {"network.peer.address", "network.peer.port"} & has.keys()


def test_what_could_not_be_read_is_not_made_up() -> None:
    has = attributes(span := span_of(method=b"", status=STATUS_UNKNOWN))
    assert span.name == "HTTP"
    assert has["http.request.method"] == "_OTHER"
    assert not {"http.request.method_original", "http.response.status_code", "error.type"} & has.keys()
    assert span.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize(("major", "minor", "told"), [(1, 0, "1.0"), (1, 1, "1.1"), (2, 0, "2")])
def test_protocol_versions(major: int, minor: int, told: str) -> None:
    has = attributes(span_of(protocol_major=major, protocol_minor=minor))
    assert has["network.protocol.version"] == told


def test_texts_that_are_not_utf_8_or_were_cut() -> None:
    span = span_of(
        target=b"/\xff",
        user_agent=b"agent \xe9",
        tracestate=b"a=1,b=2,cut-of",
        cut=("tracestate", "target", "user_agent"),
    )
    assert attributes(span)["url.path"] == "/\ufffd"
    assert attributes(span)["user_agent.original"] == "agent \ufffd"
    assert span.trace_state == "a=1,b=2"


def test_many_different_spans_do_not_mix() -> None:
    """More than the caches hold: every span still says what its own record says."""
    for number in range(20_000):
        target = f"/items/{number}?n={number}".encode()
        span = span_of(
            target=target, remote_addr=f"192.0.2.2:{number % 60000 + 1}".encode(), status=200 + number % 300
        )
        has = attributes(span)
        assert (has["url.path"], has["url.query"]) == (f"/items/{number}", f"n={number}")
        assert has["network.peer.port"] == number % 60000 + 1
        assert has["http.response.status_code"] == 200 + number % 300
