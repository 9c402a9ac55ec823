"""PRODUCER spans from the records of Kafka's producers, by OpenTelemetry's messaging conventions."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.kernel.formats import Format
from agent.spans.http import text_of
from agent.spans.kafka import describe_error, describe_server, key_of
from agent.spans.records import TEXT_CUT, Encoder
from agent.spans.template import HEADER, fill, remember, set_attribute

_LENGTH = TEXT_CUT - 1

_TEXTS = ("topic", "server", "client_id", "error.type", "error.cause", "error.text", "key")
_NUMBERS = ("messages", "partition", "failed", "error.number")


def kafka_producer_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct kafka_producer_record` (bpf/kafka.h)."""
    return _KafkaProducerEncoder(record).encode


class _KafkaProducerEncoder:
    """Keeps what repeats from call to call, encoded."""

    def __init__(self, record: Format) -> None:
        position = {field.name: index for index, field in enumerate(record.fields)}
        links = range(sum(name.startswith("link[") and name.endswith(".span_id") for name in position))
        self._unpack = record.packer.unpack_from
        self._header = itemgetter(*(position[f"header.{name}"] for name in HEADER))
        self._texts = itemgetter(
            *(position[f"{name}.{part}"] for name in _TEXTS for part in ("offset", "length"))
        )
        self._numbers = itemgetter(*(position[name] for name in _NUMBERS))
        self._own = itemgetter(*(position[name] for name in ("offset", "tombstone", "links")))
        self._links = itemgetter(
            *(position[f"link[{index}].{name}"] for index in links for name in ("trace_id", "span_id"))
        )
        self._templates: dict[object, bytes] = {}

    def encode(self, record: bytes, clock: int) -> bytes:
        """Make the encoded span of a record; `clock` ns are added to its times to make them Unix time."""
        fields = self._unpack(record)
        places = self._texts(fields)
        texts = [
            record[places[at] : places[at] + (places[at + 1] & _LENGTH)] for at in range(0, len(places), 2)
        ]
        key = texts.pop()
        numbers = self._numbers(fields)
        about = (*texts, numbers)
        template = self._templates.get(about)
        if template is None:
            template = _template([text_of(text) for text in texts], *numbers)
            remember(self._templates, about, template)
        span = Span()
        fill(span, clock, *self._header(fields))
        self._describe_message(span, key_of(key, places[-1]), fields)
        return template + span.SerializeToString()

    def _describe_message(self, span: Span, key: str, fields: tuple[Any, ...]) -> None:
        """Add what is another thing in every message."""
        offset, tombstone, links = self._own(fields)
        if offset >= 0:
            set_attribute(span, "messaging.kafka.offset", offset)
        if key:
            set_attribute(span, "messaging.kafka.message.key", key)
        if tombstone:
            span.attributes.add(key="messaging.kafka.message.tombstone").value.bool_value = True
        if links:
            ids = self._links(fields)
            for index in range(links):
                span.links.add(trace_id=ids[2 * index], span_id=ids[2 * index + 1])


def _template(texts: Sequence[str], messages: int, partition: int, failed: int, number: int) -> bytes:
    """Encode what the spans of many calls have in common."""
    destination, server, client_id, *error = texts
    span = Span(kind=Span.SPAN_KIND_PRODUCER)
    span.name = f"send {destination}" if destination else "send"
    set_attribute(span, "messaging.system", "kafka")
    set_attribute(span, "messaging.operation.name", "send")
    set_attribute(span, "messaging.operation.type", "send")
    if destination:
        set_attribute(span, "messaging.destination.name", destination)
    if partition >= 0:
        set_attribute(span, "messaging.destination.partition.id", str(partition))
    if messages > 1:
        set_attribute(span, "messaging.batch.message_count", messages)
    if client_id:
        set_attribute(span, "messaging.client.id", client_id)
    describe_server(span, server)
    if failed:
        describe_error(span, *error, number=number)
    return span.SerializeToString()
