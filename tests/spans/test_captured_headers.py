"""Attributes from made-up lines of headers."""

from __future__ import annotations

import struct

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.kernel import btf
from agent.kernel.formats import format_of
from agent.paths import object_file
from agent.spans.captured_headers import CUT, REQUEST, SECRET, CapturedHeaders, number_of_name
from agent.spans.records import TEXT_CUT


def line(name: str, value: bytes, mark: int = 0) -> bytes:
    return struct.pack("<HH", number_of_name(name), len(value) | mark) + value


def headers(*lines: bytes, prefix: str = REQUEST) -> dict[str, list[str]]:
    span = Span.FromString(CapturedHeaders().encode(prefix, b"".join(lines)))
    found = {one.key: [item.string_value for item in one.value.array_value.values] for one in span.attributes}
    assert len(found) == len(span.attributes)
    return found


def test_the_line_is_the_programs() -> None:
    found = format_of(btf.read(str(object_file("net_http_server"))).struct("captured_header"))
    assert found.names == ("name", "length")
    assert found.packer.format == "<HH"


def test_none() -> None:
    assert headers() == {}


def test_lines_of_a_name_are_one_attribute() -> None:
    found = headers(line("a", b"1"), line("b", b""), line("a", b"2, 3"), prefix="http.response.header.")
    assert found == {"http.response.header.a": ["1", "2, 3"], "http.response.header.b": [""]}


def test_secrets_have_no_value() -> None:
    assert headers(line("authorization", b"", SECRET), line("authorization", b"", SECRET)) == {
        "http.request.header.authorization": ["REDACTED", "REDACTED"]
    }


@pytest.mark.parametrize(
    ("raw", "mark", "shown"),
    [
        (b"abc", TEXT_CUT, "abc" + CUT),
        ("aé".encode()[:2], TEXT_CUT, "a" + CUT),
        ("aé".encode()[:2], 0, "a\N{REPLACEMENT CHARACTER}"),
        (b"\xff\xe9b", 0, "\N{REPLACEMENT CHARACTER}" * 2 + "b"),
    ],
)
def test_values_that_are_cut_or_are_no_text(raw: bytes, mark: int, shown: str) -> None:
    assert headers(line("x", raw, mark)) == {"http.request.header.x": [shown]}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("location", "/a?b=1&sig=x#c", "/a?b=1&sig=REDACTED#c"),
        ("referer", "https://u:p@example.com/@?a", "https://REDACTED:REDACTED@example.com/@?a"),
        ("content-location", "plain", "plain"),
        ("x-note", "?sig=x", "?sig=x"),
    ],
)
def test_urls_are_without_secrets(name: str, value: str, shown: str) -> None:
    assert headers(line(name, value.encode())) == {f"http.request.header.{name}": [shown]}


def test_a_name_keeps_its_number() -> None:
    one, other = number_of_name("x-one"), number_of_name("x-other")
    assert one != other
    assert number_of_name("x-one") == one
