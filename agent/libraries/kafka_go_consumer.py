"""github.com/segmentio/kafka-go, receiving: one CONSUMER span a message."""

from __future__ import annotations

from agent.libraries.kafka_go_producer import KAFKA_GO, MESSAGE_CONTEXT
from agent.libraries.library import Feature, Library, Probe
from agent.spans.kafka_consumer import kafka_consumer_encoder
from agent.spans.resource import SCHEMA_URL

_FETCH = f"{KAFKA_GO}.(*Reader).FetchMessage"
_READ = f"{KAFKA_GO}.(*Conn).ReadMessage"

KAFKA_GO_CONSUMER = Library(
    name="kafka-go consumer",
    object="kafka_go_consumer",
    module=KAFKA_GO,
    schema_url=SCHEMA_URL,
    records={"kafka_consumer_record": kafka_consumer_encoder},
    probes=(
        Probe(program="kafka_go_fetch_start", symbols=(_FETCH,), gives="the end of a Reader's messages"),
        Probe(program="kafka_go_fetch_end", symbols=(_FETCH,), at="return", gives="the messages of a Reader"),
        Probe(program="kafka_go_read_start", symbols=(_READ,), gives="the beginning of a Conn's ReadMessage"),
        Probe(program="kafka_go_read_end", symbols=(_READ,), at="return", gives="the messages of a Conn"),
        Probe(
            program="kafka_go_close",
            symbols=(f"{KAFKA_GO}.(*Reader).Close",),
            gives="the end of a Reader's last message",
        ),
    ),
    features=(
        Feature(what="which calls return", fields=(("runtime.g.stack.hi",),), required=True),
        Feature(
            what="messaging.destination.name, messaging.destination.partition.id, messaging.kafka.offset",
            fields=(
                (
                    f"{KAFKA_GO}.Message.Topic",
                    f"{KAFKA_GO}.Message.Partition",
                    f"{KAFKA_GO}.Message.Offset",
                ),
            ),
            required=True,
        ),
        Feature(what="the parent from traceparent", fields=(MESSAGE_CONTEXT,)),
        Feature(what="messaging.kafka.message.key", fields=((f"{KAFKA_GO}.Message.Key",),)),
        Feature(
            what="messaging.consumer.group.name",
            fields=((f"{KAFKA_GO}.Reader.config.GroupID",),),
            of="kafka_go_fetch_end",
        ),
        Feature(
            what="server.address, server.port",
            fields=((f"{KAFKA_GO}.Reader.config.Brokers",),),
            of="kafka_go_fetch_end",
        ),
        Feature(
            what="messaging.client.id",
            fields=((f"{KAFKA_GO}.Reader.config.Dialer", f"{KAFKA_GO}.Dialer.ClientID"),),
            of="kafka_go_fetch_end",
        ),
        Feature(
            what="messaging.client.id of a Conn",
            fields=((f"{KAFKA_GO}.Conn.clientID",),),
            of="kafka_go_read_end",
        ),
        Feature(
            what="error.type of connections that fail", fields=(("net.OpError.Err", "os.SyscallError.Err"),)
        ),
    ),
)
