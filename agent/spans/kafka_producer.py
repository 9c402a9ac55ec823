"""PRODUCER spans from the records of Kafka's producers, by OpenTelemetry's messaging conventions."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.kernel.formats import Format
from agent.spans.http import text_of
from agent.spans.kafka import KafkaRecord, begin_span, describe_error, describe_peers
from agent.spans.records import Encoder
from agent.spans.template import fill, remember, set_attribute

_TEXTS = ("topic", "server", "client_id", "error.type", "error.cause", "error.text")
_NUMBERS = ("messages", "partition", "failed", "error.number")
_OWN = ("offset", "tombstone")


def kafka_producer_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct kafka_producer_record` (bpf/kafka.h)."""
    return _KafkaProducerEncoder(record).encode


class _KafkaProducerEncoder:
    """Keeps what repeats from call to call, encoded."""

    def __init__(self, record: Format) -> None:
        self._record = KafkaRecord(record, _TEXTS, _NUMBERS, _OWN)
        self._templates: dict[object, bytes] = {}

    def encode(self, record: bytes, clock: int) -> bytes:
        """Make the encoded span of a record; `clock` ns are added to its times to make them Unix time."""
        fields = self._record.unpack(record)
        texts = self._record.texts(record, fields)
        numbers = self._record.numbers(fields)
        template = self._templates.get((texts, numbers))
        if template is None:
            template = _template([text_of(text) for text in texts], *numbers)
            remember(self._templates, (texts, numbers), template)
        offset, tombstone = self._record.own(fields)
        span = Span()
        fill(span, clock, *self._record.header(fields))
        self._record.describe_message(span, record, fields, offset)
        if tombstone:
            span.attributes.add(key="messaging.kafka.message.tombstone").value.bool_value = True
        return template + span.SerializeToString()


def _template(texts: Sequence[str], messages: int, partition: int, failed: int, number: int) -> bytes:
    """Encode what the spans of many calls have in common."""
    destination, server, client_id, *error = texts
    span = begin_span(Span.SPAN_KIND_PRODUCER, "send", destination, partition)
    if messages > 1:
        set_attribute(span, "messaging.batch.message_count", messages)
    describe_peers(span, server, client_id)
    if failed:
        describe_error(span, *error, number=number)
    return span.SerializeToString()
