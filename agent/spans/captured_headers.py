"""Attributes from the headers in a record: http.request.header.<name> and http.response.header.<name>.

Records have numbers instead of names. A name keeps its number as long as the agent runs, so that what was recorded
before a change of the configuration is still read right.
"""

from __future__ import annotations

import codecs
import re
import struct

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.spans.http import CREDENTIALS, REDACTED, redact_query, text_of
from agent.spans.records import TEXT_CUT
from agent.spans.template import remember

REQUEST, RESPONSE = "http.request.header.", "http.response.header."
"""What attributes begin with (OpenTelemetry HTTP conventions); the name in lower case follows."""

SECRET = 0x4000
"""Added to the length of a value that was not read (CAPTURED_SECRET, bpf/captured_headers.h)."""

CUT = "\N{HORIZONTAL ELLIPSIS}"
"""Ends a value that was longer than a record has room for."""

_LENGTH = SECRET - 1
_LINE = struct.Struct("<HH")  # struct captured_header
_NAME = 2  # its first bytes

_URLS = frozenset(("content-location", "location", "referer"))
"""Headers that have a URL as their value, in which there may be secrets as in url.full."""

_CREDENTIALS = re.compile(r"(?<=//)[^/?#@]*@")

_names: list[str] = []
_numbers: dict[str, int] = {}


def number_of_name(name: str) -> int:
    """Give the number by which records call a header, from now on."""
    number = _numbers.get(name)
    if number is None:
        number = _numbers[name] = len(_names)
        _names.append(name)
    return number


class CapturedHeaders:
    """Encodes headers as parts of spans. Not for several threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes, tuple[bytes, ...]], bytes] = {}

    def encode(self, prefix: str, raw: bytes) -> bytes:
        """Encode the lines of headers that a record has (struct captured_header, each with its value behind it)."""
        found: dict[bytes, list[bytes]] = {}
        at = 0
        while at < len(raw):
            _, length = _LINE.unpack_from(raw, at)
            end = at + _LINE.size + (length & _LENGTH)
            found.setdefault(raw[at : at + _NAME], []).append(raw[at + _NAME : end])
            at = end
        return b"".join(self._attribute(prefix, name, tuple(lines)) for name, lines in found.items())

    def _attribute(self, prefix: str, number: bytes, lines: tuple[bytes, ...]) -> bytes:
        key = (prefix, number, lines)
        encoded = self._known.get(key)
        if encoded is None:
            name = _names[int.from_bytes(number, "little")]
            span = Span()
            values = span.attributes.add(key=prefix + name).value.array_value.values
            for line in lines:
                values.add(string_value=_value(name, line))
            encoded = span.SerializeToString()
            remember(self._known, key, encoded)
        return encoded


def _value(name: str, line: bytes) -> str:
    length = int.from_bytes(line[:2], "little")
    if length & SECRET:
        return REDACTED
    text = text_of(line[2:])
    if length & TEXT_CUT:
        # What is left of a character that was cut in two is none.
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(line[2:]) + CUT
    return _without_secrets(text) if name in _URLS else text


def _without_secrets(url: str) -> str:
    """Hide what url.full would not tell either."""
    before, question, rest = url.partition("?")
    query, number_sign, fragment = rest.partition("#")
    return _CREDENTIALS.sub(CREDENTIALS, before) + question + redact_query(query) + number_sign + fragment
