"""CLIENT spans from the records of net/http clients, by OpenTelemetry's stable HTTP conventions.

As with servers (agent/spans/http_server.py), a span is the encoding of what repeats (method, server, status), followed
by that of what doesn't.
"""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple
from urllib.parse import quote

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.kernel.formats import Format
from agent.spans.captured_headers import REQUEST, RESPONSE, CapturedHeaders
from agent.spans.go_error import GoError
from agent.spans.http import (
    CREDENTIALS,
    DEFAULT_PORTS,
    KNOWN_METHODS,
    parse_authority,
    redact_query,
    text_of,
)
from agent.spans.records import TEXT_CUT, Encoder
from agent.spans.template import HEADER, encode_attributes, encode_header, remember, set_attribute

_LENGTH = TEXT_CUT - 1

_TEXTS = ("method", "scheme", "host", "path", "query", "fragment", "error.type", "error.cause", "error.text")
_HEADERS = ("request_headers", "response_headers")
_NUMBERS = ("status", "protocol_major", "protocol_minor", "resend_count", "failed", "error.number")

_PATH_SAFE = "/$&+,:;=@"
_FRAGMENT_SAFE = "/$&+,:;=@?!()*"
"""What Go leaves as it is, besides letters, digits and `-_.~` (net/url, shouldEscape)."""


class _Texts(NamedTuple):
    method: bytes
    scheme: bytes
    host: bytes
    path: bytes
    query: bytes
    fragment: bytes
    error: bytes
    error_cause: bytes
    error_text: bytes


def http_client_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct http_client_record` (bpf/net_http_client.bpf.c)."""
    return _HttpClientEncoder(record).encode


class _HttpClientEncoder:
    """Keeps what repeats: encoded templates, and URLs put together."""

    def __init__(self, record: Format) -> None:
        position = {field.name: index for index, field in enumerate(record.fields)}
        texts = [position[f"{name}.{part}"] for name in _TEXTS for part in ("offset", "length")]
        self._unpack = record.packer.unpack_from
        self._header = itemgetter(*(position[f"header.{name}"] for name in HEADER))
        self._texts = itemgetter(*texts)
        self._numbers = itemgetter(*(position[name] for name in _NUMBERS))
        self._url_flags = itemgetter(position["credentials"], position["path_encoded"])
        self._headers_at = itemgetter(
            *(position[f"{name}.{part}"] for name in _HEADERS for part in ("offset", "length"))
        )
        self._headers = CapturedHeaders()
        self._templates: dict[object, bytes] = {}
        self._urls: dict[object, bytes] = {}

    def encode(self, record: bytes, clock: int) -> bytes:
        """Make the encoded span of a record; `clock` ns are added to its times to make them Unix time."""
        fields = self._unpack(record)
        places = self._texts(fields)
        texts = _Texts(
            *(
                record[places[at] : places[at] + (places[at + 1] & _LENGTH)]
                for at in range(0, 2 * len(_TEXTS), 2)
            )
        )
        numbers = self._numbers(fields)
        key = (texts.method, texts.scheme, texts.host, numbers, texts[6:])
        template = self._templates.get(key)
        if template is None:
            template = _template(texts, *numbers)
            remember(self._templates, key, template)

        flags = self._url_flags(fields)
        parts = (flags, texts[1:6])
        url = self._urls.get(parts)
        if url is None:
            full = _full_url(texts, credentials=flags[0], encoded=flags[1])
            url = encode_attributes({"url.full": full})
            remember(self._urls, parts, url)
        span = encode_header(clock, *self._header(fields)) + template + url
        request_at, request_length, response_at, response_length = self._headers_at(fields)
        if request_length:
            span += self._headers.encode(REQUEST, record[request_at : request_at + request_length])
        if response_length:
            span += self._headers.encode(RESPONSE, record[response_at : response_at + response_length])
        return span


def _template(
    texts: _Texts, status: int, major: int, minor: int, resend_count: int, failed: int, number: int
) -> bytes:
    """Encode what the spans of many requests have in common."""
    span = Span(kind=Span.SPAN_KIND_CLIENT)
    method = text_of(texts.method) or "GET"  # net/http, Request.Method: the empty string means GET
    known = method in KNOWN_METHODS
    span.name = method if known else "HTTP"
    set_attribute(span, "http.request.method", method if known else "_OTHER")
    if not known:
        set_attribute(span, "http.request.method_original", method)
    server = parse_authority(text_of(texts.host))
    if server.host:
        set_attribute(span, "server.address", server.host)
        port = server.port or DEFAULT_PORTS.get(text_of(texts.scheme))
        if port:
            set_attribute(span, "server.port", port)
    if major:
        set_attribute(span, "network.protocol.version", str(major) if major > 1 else f"{major}.{minor}")
    if resend_count:
        set_attribute(span, "http.request.resend_count", resend_count)
    if status:
        set_attribute(span, "http.response.status_code", status)
    if failed:
        error = GoError(text_of(texts.error), text_of(texts.error_cause), text_of(texts.error_text), number)
        set_attribute(span, "error.type", error.kind)
        span.status.message = error.message
    elif status >= 400:
        set_attribute(span, "error.type", str(status))
    if failed or status >= 400:
        span.status.code = Status.STATUS_CODE_ERROR
    return span.SerializeToString()


def _full_url(texts: _Texts, *, credentials: int, encoded: int) -> str:
    """Put a URL together as Go does (net/url, URL.String), without what is secret in it."""
    path = text_of(texts.path) if encoded or texts.path == b"*" else quote(texts.path, safe=_PATH_SAFE)
    url = f"{text_of(texts.scheme)}://{CREDENTIALS if credentials else ''}{text_of(texts.host)}"
    if path and not path.startswith("/"):
        url += "/"
    url += path
    if texts.query:
        url += "?" + redact_query(text_of(texts.query))
    if texts.fragment:
        url += "#" + quote(texts.fragment, safe=_FRAGMENT_SAFE)
    return url
