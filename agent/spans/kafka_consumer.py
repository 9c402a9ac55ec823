"""CONSUMER spans from the records of Kafka's consumers, by OpenTelemetry's messaging conventions."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.kernel.formats import Format
from agent.spans.http import text_of
from agent.spans.kafka import KafkaRecord, begin_span, describe_error, describe_peers
from agent.spans.records import TEXT_CUT, Encoder
from agent.spans.template import fill, remember, set_attribute

_LENGTH = TEXT_CUT - 1

_TEXTS = ("topic", "server", "client_id", "group", "error.type", "error.cause", "error.text")
_NUMBERS = ("receiving", "partition", "failed", "error.number")
_OWN = ("offset", "tracestate.offset", "tracestate.length")


def kafka_consumer_encoder(record: Format) -> Encoder:
    """Make the encoder of `struct kafka_consumer_record` (bpf/kafka.h)."""
    return _KafkaConsumerEncoder(record).encode


class _KafkaConsumerEncoder:
    """Keeps what repeats from message to message, encoded."""

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
        offset, state_at, state_length = self._record.own(fields)
        span = Span()
        fill(span, clock, *self._record.header(fields))
        self._record.describe_message(span, record, fields, offset)
        state = text_of(record[state_at : state_at + (state_length & _LENGTH)])
        # Where it was cut, the member that is not whole goes (W3C Trace Context, 3.3.1.5).
        span.trace_state = state.rpartition(",")[0] if state_length & TEXT_CUT else state
        return template + span.SerializeToString()


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
