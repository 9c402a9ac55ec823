"""github.com/segmentio/kafka-go, sending: one PRODUCER span a call."""

from __future__ import annotations

from agent.libraries.library import ARGUMENT, Feature, Library, Probe
from agent.spans.kafka_producer import kafka_producer_encoder
from agent.spans.resource import SCHEMA_URL

KAFKA_GO = "github.com/segmentio/kafka-go"

MESSAGE_CONTEXT = (
    f"{KAFKA_GO}.Message.Headers",
    f"{KAFKA_GO}/protocol.Header.Key",
    f"{KAFKA_GO}/protocol.Header.Value",
)
"""Where a message carries the context of whoever made it."""

_WRITE = f"{KAFKA_GO}.(*Writer).WriteMessages"
_SEND = f"{KAFKA_GO}.(*partitionWriter).writeBatch"
_SEND_BEFORE = f"{KAFKA_GO}.(*Writer).writeBatch"
"""The same up to 0.4.17."""

_AGAIN = (f"{KAFKA_GO}.isTemporary", f"{KAFKA_GO}.isTransientNetworkError")
_UNDELIVERED = "what an Async Writer can't deliver"
_BATCH = tuple(f"{KAFKA_GO}.{name}" for name in ("Writer.Async", "writeBatch.msgs", "writeBatch.time.wall"))
_WRITE_BY_CONNECTION = f"{KAFKA_GO}.(*Conn).writeCompressedMessages"

KAFKA_GO_PRODUCER = Library(
    name="kafka-go producer",
    object="kafka_go_producer",
    module=KAFKA_GO,
    schema_url=SCHEMA_URL,
    records={"kafka_producer_record": kafka_producer_encoder},
    probes=(
        Probe(program="kafka_go_write_start", symbols=(_WRITE,), gives="the beginning of WriteMessages"),
        Probe(program="kafka_go_write_end", symbols=(_WRITE,), at="return", gives="the end of WriteMessages"),
        Probe(
            program="kafka_go_write_partition",
            symbols=(f"{KAFKA_GO}.(*partitionWriter).writeMessages",),
            gives="messaging.destination.partition.id of what a Writer sends",
            absent="older releases of kafka-go have no such function",
        ),
        Probe(
            program="kafka_go_connection_start",
            symbols=(_WRITE_BY_CONNECTION,),
            gives="the beginning of what a Conn writes",
        ),
        Probe(
            program="kafka_go_connection_end",
            symbols=(_WRITE_BY_CONNECTION,),
            at="return",
            gives="the end of what a Conn writes",
        ),
        Probe(
            program="kafka_go_attempt_failed",
            symbols=(_SEND,),
            at="call",
            calls=(_AGAIN[0],),
            gives=_UNDELIVERED,
        ),
        Probe(program="kafka_go_batch_over", symbols=_AGAIN, at="return", gives=_UNDELIVERED),
        Probe(
            program="kafka_go_batch_over",
            symbols=(_SEND_BEFORE,),
            at="call",
            calls=("runtime.closechan",),
            gives=_UNDELIVERED,
        ),
    ),
    features=(
        Feature(what="which calls return", fields=(("runtime.g.stack.hi",),), required=True),
        Feature(
            what="messaging.destination.name",
            fields=((f"{KAFKA_GO}.Writer.Topic", f"{KAFKA_GO}.Message.Topic", f"{KAFKA_GO}.Message.Time"),),
            of="kafka_go_write_start",
        ),
        Feature(
            what="server.address, server.port",
            fields=((f"{KAFKA_GO}.Writer.Addr", f"{KAFKA_GO}.networkAddress.address"),),
            of="kafka_go_write_start",
        ),
        Feature(
            what="messaging.client.id",
            fields=((f"{KAFKA_GO}.Writer.Transport", f"{KAFKA_GO}.Transport.ClientID"),),
            of="kafka_go_write_start",
        ),
        Feature(
            what="messaging.destination.partition.id of what a Writer sends",
            fields=((f"{KAFKA_GO}.partitionWriter.meta.partition",),),
            of="kafka_go_write_partition",
        ),
        Feature(
            what=_UNDELIVERED,
            fields=(
                (
                    *_BATCH,
                    f"{KAFKA_GO}.Writer.MaxAttempts",
                    f"{KAFKA_GO}.partitionWriter.w",
                    f"{_SEND}{ARGUMENT}1",
                    f"{_SEND}{ARGUMENT}2",
                ),
            ),
            of="kafka_go_attempt_failed",
        ),
        Feature(
            what=_UNDELIVERED,
            fields=tuple(
                (
                    *_BATCH,
                    f"{KAFKA_GO}.writeBatch.err",
                    f"{KAFKA_GO}.writeBatch.done",
                    f"{_SEND_BEFORE}{ARGUMENT}1",
                    f"{_SEND_BEFORE}{ARGUMENT}{number}",
                )
                for number in (5, 3)
            ),
            of=_SEND_BEFORE,
        ),
        Feature(
            what="messaging.destination.name, messaging.client.id of what a Conn writes",
            fields=((f"{KAFKA_GO}.Conn.topic", f"{KAFKA_GO}.Conn.partition", f"{KAFKA_GO}.Conn.clientID"),),
            of="kafka_go_connection_start",
        ),
        Feature(
            what="messaging.kafka.message.key, messaging.kafka.message.tombstone",
            fields=((f"{KAFKA_GO}.Message.Key", f"{KAFKA_GO}.Message.Value"),),
        ),
        Feature(what="links to contexts that messages carry", fields=(MESSAGE_CONTEXT,)),
        Feature(
            what="error.type of connections that fail", fields=(("net.OpError.Err", "os.SyscallError.Err"),)
        ),
    ),
)
