"""Trace context in messages of kafka-go's Writers: it makes no spans, it ties those of several services together."""

from __future__ import annotations

from agent.libraries.kafka_go_producer import KAFKA_GO, MESSAGE_CONTEXT
from agent.libraries.library import Feature, Library, Probe

_PROTOCOL = f"{KAFKA_GO}/protocol"
_INLINED = "the compiler has inlined it, as it does in releases before 0.4.41"

KAFKA_GO_PROPAGATION = Library(
    name="kafka-go propagation",
    object="kafka_go_propagation",
    module=KAFKA_GO,
    records={},
    probes=(
        Probe(
            program="kafka_go_message_added",
            symbols=(f"{KAFKA_GO}.(*writeBatch).add",),
            gives="which call a message belongs to",
            absent=_INLINED,
            required=True,
        ),
        Probe(
            program="kafka_go_batch_sent",
            symbols=(f"{KAFKA_GO}.(*Writer).produce",),
            gives="which messages are sent",
            required=True,
        ),
        Probe(
            program="kafka_go_batch_encoded",
            symbols=(f"{_PROTOCOL}.(*RecordSet).writeToVersion2",),
            gives="where messages are encoded",
            required=True,
        ),
        Probe(
            program="kafka_go_record_encoded",
            symbols=(f"{KAFKA_GO}.(*writerRecords).ReadRecord",),
            gives="the moment at which a message is encoded",
            required=True,
        ),
    ),
    features=(
        Feature(
            what="where messages are encoded, and which they are",
            fields=(
                (
                    *MESSAGE_CONTEXT,
                    f"{KAFKA_GO}.Message.Value",
                    f"{KAFKA_GO}.Message.Time",
                    f"{KAFKA_GO}.writeBatch.msgs",
                    f"{KAFKA_GO}.writeBatch.bytes",
                    f"{KAFKA_GO}.writerRecords.msgs",
                    f"{KAFKA_GO}.writerRecords.index",
                    f"{_PROTOCOL}.RecordSet.Attributes",
                    f"{_PROTOCOL}.pageBuffer.pages",
                    f"{_PROTOCOL}.pageBuffer.length",
                    f"{_PROTOCOL}.page.offset",
                    f"{_PROTOCOL}.page.length",
                    f"{_PROTOCOL}.page.buffer",
                    f"length of {_PROTOCOL}.page.buffer",
                ),
            ),
            required=True,
        ),
    ),
)
