"""SERVER spans from the records of net/http servers, by OpenTelemetry's stable HTTP conventions.

The encoding of a span is that of what repeats from request to request (method, host, user agent, route, status), made
once and kept, the same of its target, of its peer and of its client, and that of its ids and times: encodings of a
message, one behind the other, are that of all merged (protobuf, "Encoding", last one wins; repeated fields are
appended). So a span costs a few lookups, and the putting together of bytes.
"""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.kernel.formats import Format
from agent.spans.captured_headers import REQUEST, RESPONSE, CapturedHeaders
from agent.spans.http import (
    DEFAULT_PORTS,
    KNOWN_METHODS,
    Forwarded,
    is_address,
    parse_authority,
    parse_forwarded,
    parse_target,
    redact_query,
    route_of,
    text_of,
)
from agent.spans.records import (
    RECORD_UNFINISHED,
    TEXT_CUT,
    Encoder,
)
from agent.spans.template import (
    HEADER,
    TraceStates,
    encode_attributes,
    encode_header,
    remember,
    set_attribute,
)

ERROR_PANIC = "panic"
"""error.type of a request whose handler did not return."""

STATUS_UNKNOWN = 0xFFFF
"""Of a record: the status could not be read (bpf/net_http_server.bpf.c)."""

_LENGTH = TEXT_CUT - 1

_STATIC = ("host", "user_agent", "forwarded_proto", "forwarded_host", "method")
_PLACES = (
    *("remote_addr.offset", "remote_addr.length", "host.offset", "target.offset", "target.length"),
    *(
        f"{name}.{part}"
        for name in (
            *("forwarded_for", "forwarded", "tracestate", "route"),
            *("request_headers", "response_headers"),
        )
        for part in ("offset", "length")
    ),
)
"""The members that every span takes, besides those of the header, in the struct's order."""

_TEMPLATE = (
    *("header.flags", "status", "protocol_major", "protocol_minor", "tls", "hijacked", "router"),
    *(f"{name}.{part}" for name in _STATIC for part in ("offset", "length")),
)
"""Those that a template takes."""


def http_server_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct http_server_record` (bpf/net_http_server.bpf.c)."""
    return _HttpServerEncoder(record).encode


class _HttpServerEncoder:
    """Keeps what repeats: encoded templates, and targets and addresses taken apart."""

    def __init__(self, record: Format) -> None:
        offset = {field.name: field.offset for field in record.fields}
        self._pick = record.picker((*(f"header.{name}" for name in HEADER), *_PLACES))
        self._pick_template = record.picker(_TEMPLATE)
        # The bytes of all numbers, and of where the texts of a template lie, are a part of its key.
        self._key = slice(offset["status"], offset["target.offset"])
        self._templates: dict[tuple[bytes, bytes, bytes, bytes, int], bytes] = {}
        self._targets: dict[bytes, bytes] = {}
        self._peers: dict[bytes, tuple[bytes, bytes]] = {}
        self._clients: dict[bytes, bytes] = {}
        self._trace_states = TraceStates()
        self._headers = CapturedHeaders()

    def encode(self, record: bytes, clock: int) -> bytes:
        """Make the encoded span of a record; `clock` ns are added to its times to make them Unix time."""
        (
            flags,
            start,
            end,
            trace_id,
            span_id,
            parent_id,
            peer_at,
            peer_length,
            host_at,
            target_at,
            target_length,
            forwarded_for_at,
            forwarded_for_length,
            forwarded_at,
            forwarded_length,
            tracestate_at,
            tracestate_length,
            route_at,
            route_length,
            request_at,
            request_length,
            response_at,
            response_length,
        ) = self._pick(record)
        forwarded = (
            record[forwarded_at : forwarded_at + (forwarded_length & _LENGTH)] if forwarded_length else b""
        )
        route = record[route_at : route_at + (route_length & _LENGTH)] if route_length else b""
        unfinished = flags & RECORD_UNFINISHED
        key = (record[self._key], record[host_at:target_at], route, forwarded, unfinished)
        template = self._templates.get(key)
        if template is None:
            template = self._template(record, route, forwarded)
            remember(self._templates, key, template)

        raw = record[target_at : target_at + (target_length & _LENGTH)]
        target = self._targets.get(raw)
        if target is None:
            target = _target(raw)
            remember(self._targets, raw, target)
        raw = record[peer_at : peer_at + (peer_length & _LENGTH)]
        peer = self._peers.get(raw)
        if peer is None:
            peer = _peer(raw)
            remember(self._peers, raw, peer)
        of_peer, client = peer
        if forwarded_length or forwarded_for_length:
            raw = record[forwarded_for_at : forwarded_for_at + (forwarded_for_length & _LENGTH)]
            client = self._forwarded_client(forwarded, raw) or client

        header = encode_header(clock, flags, start, end, trace_id, span_id, parent_id)
        state = self._trace_states.encode(record, tracestate_at, tracestate_length)
        span = b"".join((header, template, target, of_peer, client, state))
        if request_length:
            span += self._headers.encode(REQUEST, record[request_at : request_at + request_length])
        if response_length:
            span += self._headers.encode(RESPONSE, record[response_at : response_at + response_length])
        return span

    def _forwarded_client(self, forwarded: bytes, forwarded_for: bytes) -> bytes:
        key = forwarded + b"\0" + forwarded_for
        client = self._clients.get(key)
        if client is None:
            address = _client_of(forwarded, forwarded_for)
            client = encode_attributes({"client.address": address}) if address else b""
            remember(self._clients, key, client)
        return client

    def _template(self, record: bytes, raw_route: bytes, raw_forwarded: bytes) -> bytes:
        """Encode what the spans of many requests have in common."""
        flags, status, major, minor, tls, hijacked, router, *places = self._pick_template(record)
        unfinished = bool(flags & RECORD_UNFINISHED)
        texts = {
            name: text_of(record[at : at + (length & _LENGTH)])
            for name, at, length in zip(_STATIC, places[::2], places[1::2], strict=True)
        }
        forwarded = parse_forwarded(text_of(raw_forwarded)) if raw_forwarded else Forwarded("", "", "")
        span = Span(kind=Span.SPAN_KIND_SERVER)

        method = texts["method"]
        known = method in KNOWN_METHODS
        route = route_of(router, text_of(raw_route))
        span.name = " ".join(filter(None, (method if known else "HTTP", route)))
        set_attribute(span, "http.request.method", method if known else "_OTHER")
        if method and not known:
            set_attribute(span, "http.request.method_original", method)
        if route:
            set_attribute(span, "http.route", route)

        scheme = _forwarded_scheme(forwarded.proto or texts["forwarded_proto"]) or (
            "https" if tls else "http"
        )
        set_attribute(span, "url.scheme", scheme)
        server = parse_authority(forwarded.host or _first_of(texts["forwarded_host"]) or texts["host"])
        if server.host:
            set_attribute(span, "server.address", server.host)
            set_attribute(span, "server.port", server.port or DEFAULT_PORTS[scheme])
        if texts["user_agent"]:
            set_attribute(span, "user_agent.original", texts["user_agent"])
        if major:
            set_attribute(span, "network.protocol.version", str(major) if major > 1 else f"{major}.{minor}")

        # A handler that sets no status has it set to 200 for it (net/http, server.go: finishRequest).
        if not status and not unfinished and not hijacked:
            status = 200
        if status == STATUS_UNKNOWN:
            status = 0
        if status:
            set_attribute(span, "http.response.status_code", status)
        if unfinished or status >= 500:
            set_attribute(span, "error.type", ERROR_PANIC if unfinished else str(status))
            span.status.code = Status.STATUS_CODE_ERROR
        if unfinished:
            span.status.message = "the handler panicked"
        return span.SerializeToString()


def _target(raw: bytes) -> bytes:
    target = parse_target(text_of(raw))
    query = redact_query(target.query)
    return encode_attributes({"url.path": target.path, **({"url.query": query} if query else {})})


def _peer(raw: bytes) -> tuple[bytes, bytes]:
    """The attributes of the connection's other end, and of a client that is no other."""
    peer = parse_authority(text_of(raw))
    if peer.port is None:  # a Unix socket, often of a proxy that tells the client's address
        return b"", b""
    attributes: dict[str, str | int] = {"network.peer.address": peer.host, "network.peer.port": peer.port}
    return encode_attributes(attributes), encode_attributes(
        {"client.address": peer.host} if peer.host else {}
    )


def _client_of(forwarded: bytes, forwarded_for: bytes) -> str:
    """The client's address as proxies tell it, by Forwarded or by X-Forwarded-For; "" where that is none."""
    for host in (
        parse_forwarded(text_of(forwarded)).client,
        parse_authority(_first_of(text_of(forwarded_for))).host,
    ):
        if is_address(host):
            return host
    return ""


def _first_of(values: str) -> str:
    return values.partition(",")[0].strip()


def _forwarded_scheme(values: str) -> str:
    scheme = _first_of(values).lower()
    return scheme if scheme in DEFAULT_PORTS else ""
