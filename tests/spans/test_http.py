"""HTTP's own syntaxes, case by case."""

from __future__ import annotations

import pytest

from agent.spans.http import (
    Authority,
    Forwarded,
    Target,
    is_address,
    parse_authority,
    parse_forwarded,
    parse_target,
    redact_also,
    redact_query,
    route_of_pattern,
    text_of,
)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b?x=1&y=2", "/a/b", "x=1&y=2"),
        ("/a?", "/a", ""),
        ("/a?b?c", "/a", "b?c"),
        ("//double//slash", "//double//slash", ""),
        ("/http://in/the/path", "/http://in/the/path", ""),
        ("*", "*", ""),
        ("http://example.com/a?b", "/a", "b"),
        ("https://example.com", "/", ""),
        ("http://example.com?a=/b", "/", "a=/b"),
        ("example.com:443", "", ""),
        ("", "", ""),
    ],
)
def test_targets_in_all_their_forms(target: str, path: str, query: str) -> None:
    assert parse_target(target) == Target(path, query)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.com", "example.com", None),
        ("example.com:8080", "example.com", 8080),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:80", "::1", 80),
        ("[fe80::1%eth0]:443", "fe80::1%eth0", 443),
        ("[::1]", "::1", None),
        ("2001:db8::1", "2001:db8::1", None),
        ("example.com:", "example.com", None),
        ("example.com:http", "example.com", None),
        ("example.com:0", "example.com", None),
        ("example.com:65536", "example.com", None),
        ("example.com:999999999999", "example.com", None),
        ("example.com:\u0664\u0662", "example.com", None),
        ("@", "@", None),
        ("", "", None),
    ],
)
def test_authorities(text: str, host: str, port: int | None) -> None:
    assert parse_authority(text) == Authority(host, port)


@pytest.mark.parametrize(
    ("value", "client", "host", "proto"),
    [
        ("for=192.0.2.60;proto=https;by=203.0.113.43", "192.0.2.60", "", "https"),
        ("for=192.0.2.43, for=198.51.100.17", "192.0.2.43", "", ""),
        ('For="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17", "", ""),
        ("for=192.0.2.60:1234 ; host=example.com:8080", "192.0.2.60", "example.com:8080", ""),
        ('host="a\\"b";proto=http', "", 'a"b', "http"),
        ("PROTO=http;Host=h", "", "h", "http"),
        ("for=unknown", "unknown", "", ""),
        ("nonsense", "", "", ""),
        ("", "", "", ""),
        ('for="unterminated', "", "", ""),
    ],
)
def test_forwarded(value: str, client: str, host: str, proto: str) -> None:
    assert parse_forwarded(value) == Forwarded(client, host, proto)


@pytest.mark.parametrize(
    ("pattern", "route"),
    [
        ("/", "/"),
        ("/items/{id}", "/items/{id}"),
        ("GET /items/{id}", "/items/{id}"),
        ("GET\t/items", "/items"),
        ("example.com/", "/"),
        ("POST example.com/a/{rest...}", "/a/{rest...}"),
        ("/{$}", "/{$}"),
        ("", ""),
        ("GET example.com", ""),
    ],
)
def test_patterns(pattern: str, route: str) -> None:
    assert route_of_pattern(pattern) == route


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("a=1&b=2", "a=1&b=2"),
        ("sig=secret", "sig=REDACTED"),
        ("a=1&sig=se%3Dcret&b=2", "a=1&sig=REDACTED&b=2"),
        ("AWSAccessKeyId=key&Signature=x", "AWSAccessKeyId=REDACTED&Signature=REDACTED"),
        ("X-Goog-Signature=x", "X-Goog-Signature=REDACTED"),
        ("X-Amz-Credential=a&X-Amz-Date=b", "X-Amz-Credential=REDACTED&X-Amz-Date=b"),
        (
            "X-Amz-Signature=a&X-Amz-Security-Token=b",
            "X-Amz-Signature=REDACTED&X-Amz-Security-Token=REDACTED",
        ),
        ("design=1&sig=", "design=1&sig="),
        ("nosig=1", "nosig=1"),
        ("Sig=1", "Sig=1"),
    ],
)
def test_secrets_in_queries(query: str, shown: str) -> None:
    assert redact_query(query) == shown


def test_more_secrets_in_queries() -> None:
    redact_also(["token", "a.b", ""])
    try:
        assert redact_query("token=x&a.b=1&acb=2&sig=y") == "token=REDACTED&a.b=REDACTED&acb=2&sig=REDACTED"
        assert redact_query("a=1") == "a=1"
    finally:
        redact_also([])
    assert redact_query("token=x&sig=y") == "token=x&sig=REDACTED"


def test_what_is_an_address() -> None:
    assert is_address("192.0.2.1")
    assert is_address("fe80::1%eth0")
    assert not is_address("unknown")
    assert not is_address("192.0.2.1:80")


def test_bytes_that_are_no_text() -> None:
    assert text_of(b"a\xff\xc3\xa9") == "a\ufffd\u00e9"
