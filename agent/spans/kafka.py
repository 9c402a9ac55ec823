"""What the messaging conventions say of Kafka (OpenTelemetry, in development), for every library that speaks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.kernel.formats import Format
from agent.spans.go_error import GoError
from agent.spans.http import parse_authority, text_of
from agent.spans.kafka_errors import error_name
from agent.spans.records import TEXT_CUT
from agent.spans.template import HEADER, encode_header, remember, set_attribute

_LENGTH = TEXT_CUT - 1

_LINK = re.compile(r"(link(?:\[\d+\])?)\.span_id")


class KafkaRecord:
    """How the records of producers and consumers are read (bpf/kafka.h).

    `texts` and `numbers` are the members that repeat from span to span, and what is made of them is kept; `own` are
    others that are wanted, two at least.
    """

    def __init__(
        self, record: Format, texts: Sequence[str], numbers: Sequence[str], own: Sequence[str]
    ) -> None:
        position = {field.name: index for index, field in enumerate(record.fields)}
        links = [found[1] for found in map(_LINK.fullmatch, position) if found]
        self._unpack = record.packer.unpack_from
        self._header = itemgetter(*(position[f"header.{name}"] for name in HEADER))
        self._numbers = itemgetter(*(position[name] for name in numbers))
        self._own = itemgetter(*(position[name] for name in own))
        self._texts = itemgetter(
            *(position[f"{name}.{part}"] for name in texts for part in ("offset", "length"))
        )
        self._message = itemgetter(
            *(position[name] for name in ("offset", "key.offset", "key.length", "links")),
            *(position[f"{link}.{name}"] for link in links for name in ("trace_id", "span_id")),
        )
        self._templates: dict[object, bytes] = {}

    def begin(
        self, record: bytes, clock: int, template: Callable[..., bytes]
    ) -> tuple[bytes, Span, tuple[Any, ...]]:
        """Give the span as far as it is encoded; what else there is of this message; and the other members asked for.

        `template` encodes what many spans have in common, from the texts and the numbers, where they are new; `clock`
        ns are added to the record's times to make them Unix time.
        """
        fields = self._unpack(record)
        places = self._texts(fields)
        texts = tuple(
            record[places[at] : places[at] + (places[at + 1] & _LENGTH)] for at in range(0, len(places), 2)
        )
        key = texts, self._numbers(fields)
        common = self._templates.get(key)
        if common is None:
            common = template([text_of(text) for text in texts], *key[1])
            remember(self._templates, key, common)
        span = Span()
        self._describe_message(span, record, fields)
        return encode_header(clock, *self._header(fields)) + common, span, self._own(fields)

    def _describe_message(self, span: Span, record: bytes, fields: tuple[Any, ...]) -> None:
        """Add what is another thing in every message: offset, key, and links to contexts that it carries."""
        offset, at, length, links, *ids = self._message(fields)
        if offset >= 0:
            set_attribute(span, "messaging.kafka.offset", offset)
        if key := _key_of(record[at : at + (length & _LENGTH)], length):
            set_attribute(span, "messaging.kafka.message.key", key)
        for index in range(links):
            span.links.add(trace_id=ids[2 * index], span_id=ids[2 * index + 1])


def begin_span(kind: Span.SpanKind.ValueType, operation: str, destination: str, partition: int) -> Span:
    """A span with its name and the attributes that all of them have; `destination` is a topic, or empty."""
    span = Span(kind=kind, name=f"{operation} {destination}" if destination else operation)
    set_attribute(span, "messaging.system", "kafka")
    set_attribute(span, "messaging.operation.name", operation)
    set_attribute(span, "messaging.operation.type", operation)
    if destination:
        set_attribute(span, "messaging.destination.name", destination)
    if partition >= 0:
        set_attribute(span, "messaging.destination.partition.id", str(partition))
    return span


def describe_peers(span: Span, address: str, client_id: str) -> None:
    """Add server.address, server.port and messaging.client.id; `address` is `host:port`. Either may be empty."""
    if client_id:
        set_attribute(span, "messaging.client.id", client_id)
    server = parse_authority(address)
    if server.host:
        set_attribute(span, "server.address", server.host)
        if server.port is not None:
            set_attribute(span, "server.port", server.port)


def describe_error(span: Span, type_: str, cause: str, text: str, *, number: int) -> None:
    """Make the span an error: what a Go library returned (bpf/go_error.h)."""
    span.status.code = Status.STATUS_CODE_ERROR
    if type_ == "kafka.Error":
        name = error_name(number)
        set_attribute(span, "error.type", name)
        span.status.message = name.replace("_", " ").lower()
        return
    if type_ == "kafka.MessageTooLargeError":
        set_attribute(span, "error.type", "MESSAGE_TOO_LARGE")
        span.status.message = "message too large"
        return
    error = GoError(type_, cause, text, number)
    set_attribute(span, "error.type", error.kind)
    span.status.message = error.message


def _key_of(raw: bytes, length: int) -> str:
    """A message's key, where it is text and whole; `length` as in the record. The others could not be compared."""
    if not raw or length & TEXT_CUT:
        return ""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return ""
