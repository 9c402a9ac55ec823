"""The spans of kafka-go, compared with what a real Kafka has and with what the program says it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from socket import create_server
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.brokers import kafka
from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.kafka_go import RELEASES, App, program, running_app

pytestmark = pytest.mark.kernel

PARENT = "00-0af7651916cd43dd8448eb211c80319c-{:016x}-01"


@pytest.fixture(scope="module")
def broker() -> Iterator[kafka.Kafka]:
    with kafka.running() as one:
        yield one


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as one:
        yield one
        assert one.stop()["dropped"] == {}


@pytest.fixture
def app(daemon: Daemon, broker: kafka.Kafka) -> Iterator[App]:
    """The program with the newest kafka-go; nothing of what it did before is among its spans."""
    path = program()
    with running_app(path, broker.address) as one:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        yield one


_names = count(1)


def new_name() -> str:
    return f"topic-{next(_names)}"


def messages(number: int, **also: object) -> list[dict[str, Any]]:
    return [{"key": f"key-{index}", "value": f"value-{index}"} | also for index in range(number)]


def spans(daemon: Daemon, app: App, kind: Span.SpanKind.ValueType, number: int) -> list[Span]:
    """Wait for so many spans of a kind; there must not be more of them. In the order of their beginning."""

    def found() -> list[Span]:
        return [span for span in daemon.spans_of(app.pid) if span.kind == kind]

    eventually(lambda: len(found()) >= number, f"{number} spans")
    assert len(found()) == number
    return sorted(found(), key=lambda span: span.start_time_unix_nano)


def producers(daemon: Daemon, app: App, number: int) -> list[Span]:
    return spans(daemon, app, Span.SPAN_KIND_PRODUCER, number)


def sent(found: Sequence[Span]) -> int:
    """How many messages the spans tell of."""
    return sum(attributes(span).get("messaging.batch.message_count", 1) for span in found)


@pytest.mark.parametrize("release", RELEASES)
def test_what_writers_send_with_every_release(release: str, daemon: Daemon, broker: kafka.Kafka) -> None:
    path = program(release)
    host, _, port = broker.address.partition(":")
    with running_app(path, broker.address) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        topic, other = app.topic(new_name(), 3), app.topic(new_name())
        told = {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": topic,
            "server.address": host,
            "server.port": int(port),
        }
        calls: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({"messages": messages(1)}, {"messaging.kafka.message.key": "key-0"}),
            ({"messages": [{"value": "v"}], "client": "me"}, {"messaging.client.id": "me"}),
            ({"messages": messages(1), "how": "config", "client": "you"}, {"messaging.client.id": "you"}),
            ({"messages": [{"key": "gone"}]}, {"messaging.kafka.message.tombstone": True}),
            ({"messages": messages(7)}, {"messaging.batch.message_count": 7}),
            ({"messages": messages(200)}, {"messaging.batch.message_count": 200}),
            ({"messages": messages(5), "how": "async"}, {"messaging.batch.message_count": 5}),
        ]
        for arguments, _ in calls:
            assert not app.do("produce", topic=topic, **arguments)["error"]
        found = producers(daemon, app, len(calls))
        for span, (arguments, wanted) in zip(found, calls, strict=True):
            has = attributes(span)
            assert span.name == f"send {topic}"
            assert has.items() >= (told | wanted).items(), arguments
            assert span.status.code == Status.STATUS_CODE_UNSET
            assert not span.parent_span_id
            assert ("messaging.batch.message_count" in has) == (len(arguments["messages"]) > 1)
        assert sent(found) == sum(app.offsets(topic))

        # The topic may come with each message.
        both = [{"topic": topic, "value": "a"}, {"topic": other, "value": "b"}]
        same = [{"topic": other, "value": "a"} for _ in range(20)]
        for group in (both, same):
            assert not app.do("produce", messages=group)["error"]
        several, one = producers(daemon, app, len(calls) + 2)[-2:]
        assert several.name == "send"
        assert "messaging.destination.name" not in attributes(several)
        assert one.name == f"send {other}"
        assert attributes(one)["messaging.batch.message_count"] == 20

        # A Conn knows where its messages came to lie.
        before = app.offsets(topic)[2]
        assert not app.do("write", topic=topic, partitions=2, messages=messages(3), client="conn")["error"]
        (span,) = producers(daemon, app, len(calls) + 3)[-1:]
        has = attributes(span)
        assert has["messaging.destination.name"] == topic
        assert has["messaging.destination.partition.id"] == "2"
        assert has["messaging.kafka.offset"] == before
        assert has["messaging.client.id"] == "conn"
        assert has["messaging.batch.message_count"] == 3


def test_messages_that_could_not_be_sent(daemon: Daemon, app: App) -> None:
    topic = app.topic(new_name())
    nowhere = ["127.0.0.1:1"]
    silent = create_server(("127.0.0.1", 0))
    nobody = [f"127.0.0.1:{silent.getsockname()[1]}"]
    failures: list[tuple[dict[str, Any], str]] = [
        ({"brokers": nowhere}, "connection_refused"),
        ({"messages": [{"size": 2 << 20}]}, "MESSAGE_TOO_LARGE"),
        ({"messages": [{"value": "a"}, {"size": 2 << 20}]}, "MESSAGE_TOO_LARGE"),
        ({"brokers": nobody, "cancel": 50}, "canceled"),
        ({"brokers": nobody, "deadline": 50}, "timeout"),
        ({"topic": "no-such-topic"}, "UNKNOWN_TOPIC_OR_PARTITION"),
    ]
    for number, (arguments, error) in enumerate(failures):
        answer = app.do("produce", **({"topic": topic, "messages": messages(1)} | arguments))
        assert answer["error"], arguments
        span = producers(daemon, app, number + 1)[-1]
        assert attributes(span)["error.type"] == error, (arguments, answer)
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert span.status.message
    silent.close()
    assert sum(app.offsets(topic)) == 0


def test_producers_within_requests_and_their_parents(daemon: Daemon, app: App) -> None:
    """64 callers at a time: what a handler sends, on its own goroutine or another one, belongs to its request."""
    topic = app.topic(new_name(), 4)
    ways = ("context", "background", "goroutine")
    paths = [f"/produce?topic={topic}&id={number}&how={ways[number % 3]}" for number in range(960)]
    assert {status for status, _ in app.get(paths, connections=64)} == {200}
    made = producers(daemon, app, len(paths))
    requests = {
        span.span_id: attributes(span)["url.query"]
        for span in spans(daemon, app, Span.SPAN_KIND_SERVER, len(paths))
    }
    assert sum(app.offsets(topic)) == len(paths)
    keys = set()
    for span in made:
        key = attributes(span)["messaging.kafka.message.key"]
        keys.add(key)
        assert f"&id={key}&" in requests[span.parent_span_id]
    assert len(keys) == len(paths)


def test_contexts_that_the_program_itself_puts_into_messages(daemon: Daemon, app: App) -> None:
    topic = app.topic(new_name())
    carried = [
        {"value": "v", "headers": [["a", "b"], ["traceparent", PARENT.format(number)]]} for number in (1, 2)
    ]
    many = {"value": "v", "headers": [["n", "v"]] * 20 + [["traceparent", PARENT.format(3)]]}
    assert not app.do("produce", topic=topic, messages=[*carried, *messages(2), many])["error"]
    (span,) = producers(daemon, app, 1)
    assert [link.span_id.hex() for link in span.links] == [f"{number:016x}" for number in (1, 2, 3)]
    assert {link.trace_id.hex() for link in span.links} == {PARENT.split("-")[1]}
    assert not span.parent_span_id
