"""CONSUMER spans from the records of Kafka's consumers, by OpenTelemetry's messaging conventions."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.kernel.formats import Format
from agent.spans.http import text_of
from agent.spans.kafka import KafkaRecord, begin_span, describe_error, describe_peers
from agent.spans.records import TEXT_CUT, Encoder
from agent.spans.template import set_attribute

_LENGTH = TEXT_CUT - 1

_TEXTS = ("topic", "server", "client_id", "group", "error.type", "error.cause", "error.text")
_NUMBERS = ("receiving", "partition", "failed", "error.number")


def kafka_consumer_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct kafka_consumer_record` (bpf/kafka.h)."""
    reader = KafkaRecord(record, _TEXTS, _NUMBERS, ("tracestate.offset", "tracestate.length"))

    def encode(record: bytes, clock: int) -> bytes:
        template, span, (at, length) = reader.begin(record, clock, _template)
        state = text_of(record[at : at + (length & _LENGTH)])
        # Where it was cut, the member that is not whole goes (W3C Trace Context, 3.3.1.5).
        span.trace_state = state.rpartition(",")[0] if length & TEXT_CUT else state
        return template + span.SerializeToString()

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
