"""The spans of kafka-go, compared with what a real Kafka has and with what the program says it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from socket import create_server
from typing import Any
from urllib.parse import parse_qs, urlsplit

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
def test_every_release(release: str, daemon: Daemon, broker: kafka.Kafka) -> None:
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

        number = len(calls)
        # The topic may come with each message, but not in the first releases.
        if release != "0.4.1":
            number += 2
            both = [{"topic": topic, "value": "a"}, {"topic": other, "value": "b"}]
            same = [{"topic": other, "value": "a"} for _ in range(20)]
            for group in (both, same):
                assert not app.do("produce", messages=group)["error"]
            several, one = producers(daemon, app, number)[-2:]
            assert several.name == "send"
            assert "messaging.destination.name" not in attributes(several)
            assert one.name == f"send {other}"
            assert attributes(one)["messaging.batch.message_count"] == 20

        # A Conn knows where its messages came to lie.
        before = app.offsets(topic)[2]
        assert not app.do("write", topic=topic, partitions=2, messages=messages(3), client="conn")["error"]
        (span,) = producers(daemon, app, number + 1)[-1:]
        has = attributes(span)
        assert has["messaging.destination.name"] == topic
        assert has["messaging.destination.partition.id"] == "2"
        assert has["messaging.kafka.offset"] == before
        assert has["messaging.client.id"] == "conn"
        assert has["messaging.batch.message_count"] == 3

        for way in ("read in a group", "read from a connection"):
            check_what_is_read(daemon, app, broker, READERS[way] | {"group": new_name()})


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


def consumers(daemon: Daemon, app: App, number: int) -> list[Span]:
    return spans(daemon, app, Span.SPAN_KIND_CONSUMER, number)


def place(span: Span) -> tuple[str, str, int]:
    """The message that a span is of: topic, partition and offset."""
    has = attributes(span)
    return (
        has["messaging.destination.name"],
        has["messaging.destination.partition.id"],
        has["messaging.kafka.offset"],
    )


def place_called_for(span: Span) -> tuple[str, int]:
    """The message that the program's own server was called for: partition and offset."""
    found = parse_qs(urlsplit(attributes(span)["url.full"]).query)
    return found["partition"][0], int(found["offset"][0])


def with_parents(number: int) -> list[dict[str, Any]]:
    """Messages of which every second one comes from somewhere, as a header says."""
    given = messages(number)
    for index, one in enumerate(given):
        one["headers"] = [["first", "1"], ["second", "2"]]
        if index % 2:
            one["headers"].append(["traceparent", PARENT.format(index)])
            one["headers"].append(["tracestate", f"vendor={index}"])
    return given


def check_parents(found: Sequence[Span], received: Sequence[dict[str, Any]]) -> None:
    """Whether the spans, which are in the order of the messages, have as parent what the headers say."""
    for span, message in zip(found, received, strict=True):
        headers = dict(message["headers"])
        if "traceparent" in headers:
            _, trace_id, parent_id, _ = headers["traceparent"].split("-")
            assert span.trace_id.hex() == trace_id
            assert span.parent_span_id.hex() == parent_id
            assert span.trace_state == headers["tracestate"]
            assert span.flags == 0x301
        else:
            assert not span.parent_span_id
            assert span.flags == 0x101


READERS = {
    "read": {"op": "consume", "how": "read"},
    "read in a group": {"op": "consume", "how": "read", "group": "readers", "client": "me"},
    "fetch in a group": {"op": "consume", "how": "fetch", "group": "fetchers", "client": "me"},
    "read from a connection": {"op": "conn", "client": "me"},
}


def check_what_is_read(daemon: Daemon, app: App, broker: kafka.Kafka, how: dict[str, str]) -> None:
    """Each message has one span, what was done with it is in that, and its parent is what the message says."""
    topic = app.topic(new_name())
    number = 12
    assert not app.do("produce", topic=topic, messages=with_parents(number))["error"]
    answer = app.do(**how | {"topic": topic}, count=number)
    assert not answer["error"]
    received = answer["messages"]
    assert [one["offset"] for one in received] == list(range(number))
    assert app.offsets(topic) == [number]
    found = consumers_of(daemon, app, topic, number)
    operation = "process" if how["op"] == "consume" else "receive"
    assert {span.name for span in found} == {f"{operation} {topic}"}
    host, _, port = broker.address.partition(":")
    told: dict[str, Any] = {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    if how["op"] == "consume":
        told |= {"server.address": host, "server.port": int(port)}
    if "client" in how:
        told |= {"messaging.client.id": how["client"]}
    if "group" in how and how["op"] == "consume":
        told |= {"messaging.consumer.group.name": how["group"]}
    for index, span in enumerate(found):
        has = attributes(span)
        assert place(span) == (topic, "0", index)
        assert has.items() >= (told | {"messaging.kafka.message.key": f"key-{index}"}).items()
        assert not span.links
    check_parents(found, received)
    if operation == "receive":
        return
    # Each was called for while its message's span was open.
    by_id = {span.span_id: span for span in found}
    made = [
        span
        for span in daemon.spans_of(app.pid)
        if span.kind == Span.SPAN_KIND_CLIENT and span.parent_span_id in by_id
    ]
    assert len(made) == number
    for span in made:
        parent = by_id[span.parent_span_id]
        assert place_called_for(span) == place(parent)[1:]
        assert span.trace_id == parent.trace_id
        assert parent.start_time_unix_nano <= span.start_time_unix_nano
        assert parent.end_time_unix_nano >= span.end_time_unix_nano


def consumers_of(daemon: Daemon, app: App, topic: str, number: int) -> list[Span]:
    """The spans of messages of a topic; there must not be more of them."""

    def found() -> list[Span]:
        return [
            span
            for span in daemon.spans_of(app.pid)
            if span.kind == Span.SPAN_KIND_CONSUMER
            and attributes(span).get("messaging.destination.name") == topic
        ]

    eventually(lambda: len(found()) >= number, f"{number} spans of messages")
    assert len(found()) == number
    return sorted(found(), key=lambda span: span.start_time_unix_nano)


@pytest.mark.parametrize("way", READERS)
def test_what_is_read(way: str, daemon: Daemon, broker: kafka.Kafka, app: App) -> None:
    check_what_is_read(daemon, app, broker, READERS[way])


@pytest.mark.parametrize("how", ["goroutine", "channel"])
def test_messages_that_are_handed_to_another_goroutine(how: str, daemon: Daemon, app: App) -> None:
    """What that does has no parent rather than a wrong one."""
    topic = app.topic(new_name())
    assert not app.do("produce", topic=topic, messages=with_parents(20))["error"]
    answer = app.do("consume", topic=topic, how=how, count=20)
    found = consumers_of(daemon, app, topic, 20)
    check_parents(found, answer["messages"])
    by_id = {span.span_id: place(span)[1:] for span in found}
    made = spans(daemon, app, Span.SPAN_KIND_CLIENT, 20)
    assert {place_called_for(span) for span in made} == {("0", index) for index in range(20)}
    for span in made:
        if span.parent_span_id:
            assert by_id[span.parent_span_id] == place_called_for(span)


def test_messages_that_are_read_within_requests(daemon: Daemon, app: App) -> None:
    """The span is of the call, a child of the request's, with a link to what came with the message."""
    topic = app.topic(new_name())
    assert not app.do("produce", topic=topic, messages=with_parents(40))["error"]
    answers = app.get([f"/read?topic={topic}"] * 40, connections=8)
    assert {status for status, _ in answers} == {200}
    found = consumers_of(daemon, app, topic, 40)
    requests = {span.span_id for span in spans(daemon, app, Span.SPAN_KIND_SERVER, 40)}
    assert {span.parent_span_id for span in found} == requests
    for span in found:
        assert span.name == f"receive {topic}"
        has = attributes(span)
        offset = has["messaging.kafka.offset"]
        assert has["messaging.operation.type"] == "receive"
        assert [link.span_id.hex() for link in span.links] == ([f"{offset:016x}"] if offset % 2 else [])
    assert {attributes(span)["messaging.kafka.offset"] for span in found} == set(range(40))


def test_messages_that_do_not_come(daemon: Daemon, app: App) -> None:
    """A broker that is down is an error; waiting for nothing is none, unless it is within a request."""
    topic = app.topic(new_name())
    assert app.do("consume", topic=topic, count=1, deadline=300)["error"]
    assert app.do("consume", topic=topic, count=1, cancel=300)["error"]
    assert app.do("consume", topic=topic, count=1, brokers=["127.0.0.1:1"])["error"]
    (span,) = consumers(daemon, app, 1)
    assert span.name == f"receive {topic}"
    assert attributes(span)["error.type"] == "connection_refused"
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert "messaging.kafka.offset" not in attributes(span)
