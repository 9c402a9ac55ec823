"""What a Writer of kafka-go that is Async can't deliver: a real Kafka refuses it, or is not there any more."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.brokers import kafka
from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.kafka_go import NEWEST_KAFKA_GO, RELEASES, App, program, running_app

pytestmark = pytest.mark.kernel

TOO_LARGE: dict[str, Any] = {"bytes": 4 << 20, "messages": [{"key": "k", "size": 2 << 20}]}
"""A message that the Writer takes, and the broker does not."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as one:
        yield one
        assert one.stop()["dropped"] == {}


@pytest.fixture(scope="module")
def broker() -> Iterator[kafka.Kafka]:
    with kafka.running() as one:
        yield one


def producers(daemon: Daemon, app: App, number: int) -> list[Span]:
    """Wait for so many spans; there must not be more of them. In the order of their end."""

    def found() -> list[Span]:
        return [span for span in daemon.spans_of(app.pid) if span.kind == Span.SPAN_KIND_PRODUCER]

    eventually(lambda: len(found()) >= number, f"{number} spans")
    assert len(found()) == number
    return sorted(found(), key=lambda span: span.end_time_unix_nano)


def check(span: Span, topic: str, error: str, messages: int, release: str) -> dict[str, Any]:
    """An error span of a batch, which is nobody's child."""
    has = attributes(span)
    assert span.name == f"send {topic}"
    assert (span.status.code, has["error.type"]) == (Status.STATUS_CODE_ERROR, error)
    assert span.status.message
    assert not span.parent_span_id
    assert has["messaging.destination.name"] == topic
    assert has.get("messaging.batch.message_count", 1) == messages
    partition = has.get("messaging.destination.partition.id")
    assert partition == ("0" if release not in ("0.4.1", "0.4.10", "0.4.11") else None)
    return has


@pytest.mark.parametrize("release", RELEASES)
def test_a_message_that_the_broker_refuses(release: str, daemon: Daemon, broker: kafka.Kafka) -> None:
    path = program(release)
    with running_app(path, broker.address) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        topic = app.topic(f"refused-{release}")
        began = time.time_ns()
        assert not app.do("produce", topic=topic, how="async", client="me", **TOO_LARGE)["error"]
        call, batch = producers(daemon, app, 2)
        assert call.status.code == Status.STATUS_CODE_UNSET
        assert began < batch.start_time_unix_nano < call.end_time_unix_nano < batch.end_time_unix_nano
        has = check(batch, topic, "MESSAGE_TOO_LARGE", 1, release)
        assert has["messaging.kafka.message.key"] == "k"
        assert has["messaging.client.id"] == "me"
        assert has["server.port"] == broker.port
        # A Writer that is not Async tells of it by the call, and that alone does.
        assert app.do("produce", topic=topic, **TOO_LARGE)["error"]
        *_, call = producers(daemon, app, 3)
        assert attributes(call)["error.type"] == "MESSAGE_TOO_LARGE"
        # What is delivered has no other span.
        sent = {"topic": topic, "messages": [{"value": "v"}] * 3}
        assert not app.do("produce", how="async", **sent)["error"]
        *_, call = producers(daemon, app, 4)
        assert call.status.code == Status.STATUS_CODE_UNSET
        assert app.offsets(topic) == [3]


@pytest.mark.parametrize("release", RELEASES)
def test_a_broker_that_is_killed(release: str, daemon: Daemon) -> None:
    """The Writer knows of it and its topics still, and so its calls are well."""
    path = program(release)
    with kafka.running() as broker, running_app(path, broker.address) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        topic = app.topic("killed")
        sent = [{"key": f"key-{number}", "value": "v"} for number in range(3)]
        answer = app.do("keep", topic=topic, how="async", attempts=3, messages=sent)
        assert not answer["error"]
        eventually(lambda: app.offsets(topic) == [3], "the messages are there")
        time.sleep(1)  # and the Writer hears of it
        broker.process.send_signal(signal.SIGKILL)
        broker.process.wait()
        assert not app.do("send", messages=sent)["error"]
        app.do("close")
        *calls, batch = producers(daemon, app, 3)
        assert [call.status.code for call in calls] == [Status.STATUS_CODE_UNSET] * 2
        has = check(batch, topic, attributes(batch).get("error.type", ""), 3, release)
        assert has["error.type"] in ("connection_refused", "connection_closed", "connection_reset")
        assert batch.start_time_unix_nano < calls[-1].end_time_unix_nano < batch.end_time_unix_nano


def test_what_is_delivered_in_the_end(daemon: Daemon, broker: kafka.Kafka) -> None:
    """Attempts that fail are no failure if another one succeeds; those of one batch are not counted for the next."""
    path = program(NEWEST_KAFKA_GO)
    with running_app(path, broker.address) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        topic = app.topic("delivered")
        arguments = {"how": "async", "attempts": 100, "timeout": 300, "messages": [{"value": "v"}]}
        assert not app.do("keep", topic=topic, **arguments)["error"]
        for _ in range(2):
            broker.process.send_signal(signal.SIGSTOP)
            assert not app.do("send", messages=[{"value": "v"}])["error"]
            time.sleep(2)
            broker.process.send_signal(signal.SIGCONT)
            time.sleep(2)
        app.do("close")
        assert app.offsets(topic)[0] >= 3
        assert {span.status.code for span in producers(daemon, app, 3)} == {Status.STATUS_CODE_UNSET}
