"""PRODUCER spans from the records of Kafka's producers, by OpenTelemetry's messaging conventions."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.kernel.formats import Format
from agent.spans.kafka import KafkaRecord, begin_span, describe_error, describe_peers
from agent.spans.records import Encoder
from agent.spans.template import set_attribute

_TEXTS = ("topic", "server", "client_id", "error.type", "error.cause", "error.text")
_NUMBERS = ("messages", "partition", "failed", "error.number")


def kafka_producer_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct kafka_producer_record` (bpf/kafka.h)."""
    reader = KafkaRecord(record, _TEXTS, _NUMBERS, ("tombstone", "begun", "header.end"))

    def encode(record: bytes, clock: int) -> bytes:
        encoded, span, (tombstone, begun, end) = reader.begin(record, clock, _template)
        if begun:
            # Takes the place of the header's, which was encoded before it.
            span.start_time_unix_nano = min(begun, end + clock)
        if tombstone:
            span.attributes.add(key="messaging.kafka.message.tombstone").value.bool_value = True
        return encoded + span.SerializeToString()

    return encode


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
