"""CONSUMER spans from the records of Kafka's consumers, by OpenTelemetry's messaging conventions."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.kernel.formats import Format
from agent.spans.kafka import KafkaRecord, begin_span, describe_error, describe_peers
from agent.spans.records import Encoder
from agent.spans.template import TraceStates, set_attribute

_TEXTS = ("topic", "server", "client_id", "group", "error.type", "error.cause", "error.text")
_NUMBERS = ("receiving", "partition", "failed", "error.number")


def kafka_consumer_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct kafka_consumer_record` (bpf/kafka.h)."""
    reader = KafkaRecord(record, _TEXTS, _NUMBERS, ("tracestate.offset", "tracestate.length"))
    trace_states = TraceStates()

    def encode(record: bytes, clock: int) -> bytes:
        begun, span, (at, length) = reader.begin(record, clock, _template)
        return begun + span.SerializeToString() + trace_states.encode(record, at, length)

    return encode


def _template(texts: Sequence[str], receiving: int, partition: int, failed: int, number: int) -> bytes:
    """Encode what the spans of many messages have in common."""
    destination, server, client_id, group, *error = texts
    span = begin_span(Span.SPAN_KIND_CONSUMER, "receive" if receiving else "process", destination, partition)
    if group:
        set_attribute(span, "messaging.consumer.group.name", group)
    describe_peers(span, server, client_id)
    if failed:
        describe_error(span, *error, number=number)
    return span.SerializeToString()
