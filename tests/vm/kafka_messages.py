"""Writing trace context into messages to Kafka, on a guest's kernel: `python -m tests.vm.kafka_messages`.

The broker is a real one. It runs on the host, as an emulated processor takes six minutes to start it, and the guest
reaches it there. First single messages and batches, each of which has to give one trace with what is done with the
message; then a storm of messages of all sizes, by Writers of all kinds, of which the program itself checks that each
one has arrived as it was sent, once, and that the message which it gave to the Writer is as it was.
"""

# ruff: noqa: T201 (a program for the terminal)

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.brokers import kafka
from tests.support.daemon import Daemon, attributes, eventually
from tests.support.kafka_go import NEWEST_KAFKA_GO, App, program, running_app
from tests.vm import guest, kernels
from tests.vm.complaints import told
from tests.vm.injection import contexts, tracing

RELEASES = ("0.4.41", NEWEST_KAFKA_GO)
"""The first release that can be written into, and the newest."""
_FEW_SPANS = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.02"}
"""Of a storm: contexts go out whether a trace is sampled or not, and all its spans would fill a guest's memory."""
_OWN = "00-0af7651916cd43dd8448eb211c80319c-{:016x}-01"


def main() -> int:
    """Run the newest release, or those that are named, in a guest; 1 if one failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.kafka_messages", description=__doc__)
    add = parser.add_argument
    add("release", nargs="*", help=f"which of {', '.join(RELEASES)} (default: the newest)")
    add("--messages", type=int, default=600, help="of a storm (default: %(default)s)")
    add(
        "--storms",
        type=int,
        default=1,
        help="one after the other, of so many messages (default: %(default)s)",
    )
    add("--concurrency", type=int, default=32, help="calls of a storm at a time (default: %(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the agent")
    add("--arch", choices=kernels.ARCHITECTURES, default="amd64", help="of the guest (default: %(default)s)")
    add("--kernel", choices=kernels.NAMES, default="6.1", help="of the guest (default: %(default)s)")
    add("--timeout", type=float, default=540, help="seconds that the guest may take (default: %(default)g)")
    add("--inside", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    releases = options.release or RELEASES[-1:]
    if options.inside:
        with _forwarded(options.inside):
            storm = Storm(options.storms, options.messages, options.concurrency)
            failed = run(releases, options.inside, storm, options.set)
        return 1 if failed + told() else 0
    for release in releases:
        program(release, arch=options.arch)
    kernel = kernels.fetch(options.kernel, options.arch)
    command = ["python", "-m", "tests.vm.kafka_messages", *sys.argv[1:]]
    with kafka.running() as broker:
        result = guest.run(
            kernel, [*command, "--inside", str(broker.port)], timeout=options.timeout, network=True
        )
    print(result.output, end="")
    print(
        result.problem or f"kernel {kernel.release}: exit status {result.exit_status}, {result.seconds:.0f} s"
    )
    return 0 if result.exit_status == 0 else 1


@contextmanager
def _forwarded(port: int) -> Iterator[None]:
    """Have a port of the host's loopback on the guest's own: the address that the broker tells its clients."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_host, to_host = await asyncio.open_connection(guest.HOST, port)
        await asyncio.gather(_copy(reader, to_host), _copy(from_host, writer))

    async def serve() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", port)
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    yield


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@dataclass(frozen=True, slots=True)
class Storm:
    """How often so many messages are sent, by so many calls at a time."""

    times: int
    messages: int
    concurrency: int


def run(releases: Sequence[str], port: int, storm: Storm, settings: Sequence[str] = ()) -> int:
    """Run these releases against a broker, print a line for each, and give how many failed."""
    failed = 0
    with tracing("propagation.kafka=yes", *settings) as daemon:
        for release in releases:
            began = time.monotonic()
            try:
                result = _run(daemon, release, f"127.0.0.1:{port}", storm)
            except AssertionError as error:
                failed += 1
                result = f"FAILED: {error}"
            print(f"  kafka-go {release}: {result}, {time.monotonic() - began:.1f} s", flush=True)
        last = daemon.stop()
    counted = contexts(last)
    for one in (one for one in daemon.messages if one.get("level") in ("warning", "error")):
        # A long storm has more spans than an emulated processor can tell of: they are counted, contexts are written.
        if one.get("what") != "events_lost":
            failed += 1
            print(f"  FAILED: the agent says {one}")
    for wanted in ("written", "own_header", "no_room", "compressed"):
        if not counted.get(wanted):
            failed += 1
            print(f"  FAILED: no {wanted}")
    return failed


def _run(daemon: Daemon, release: str, address: str, storm: Storm) -> str:
    path = program(release)
    with running_app(path, address) as app:
        eventually(lambda: daemon.traces(str(path)), "the program is traced")
        joined = _traces(daemon, app, f"traces-{release}")
    with running_app(path, address, environ=_FEW_SPANS) as app:
        tally: Counter[str] = Counter()
        for number in range(storm.times):
            topic = app.topic(f"storm-{release}-{number}", 3)
            answer = app.do("storm", topic=topic, count=storm.messages, partitions=storm.concurrency)
            assert not answer["error"], (answer, number)
            tally.update(answer["tally"])
            if storm.times > 1:
                print(f"  storm {number + 1} of {storm.times}: {answer['tally']}", flush=True)
        assert tally["received"] == storm.times * storm.messages, tally
        sent = tally["received"] - tally["own"] - tally["compressed"]
        assert tally["carried"] > sent * 2 / 3, tally
    unsampled = _unsampled(daemon, path, address, f"unsampled-{release}")
    return (
        f"{joined} messages one trace each; {unsampled} of traces that are not sampled; storm {dict(tally)}"
    )


def _unsampled(daemon: Daemon, path: Path, address: str, name: str) -> int:
    """Send messages for requests of which none is sampled: each carries the ids that came with its request."""
    wanted = {f"id-{number}": _OWN.format(number) for number in range(1, 6)}
    with running_app(path, address, environ={"OTEL_TRACES_SAMPLER": "always_off"}) as app:
        topic = app.topic(name)
        for id_, traceparent in wanted.items():
            for how in ("", "goroutine"):
                answers = app.get(
                    [f"/produce?topic={topic}&id={id_}&how={how}"], headers={"traceparent": traceparent}
                )
                assert [status for status, _ in answers] == [200], answers
        answer = app.do("consume", how="read", topic=topic, count=2 * len(wanted))
        assert not answer["error"], answer
        assert not daemon.spans_of(app.pid)
    for received in answer["messages"]:
        carried = [value for header, value in received["headers"] or [] if header == "traceparent"]
        trace_id = wanted[received["key"]].split("-")[1]
        assert [one.split("-")[1] for one in carried] == [trace_id], received
        assert [one.split("-")[3] for one in carried] == ["00"], received
    return len(answer["messages"])


def _traces(daemon: Daemon, app: App, name: str) -> int:
    """Send messages and read them; each that was written into continues the trace of the call that sent it."""
    topic = app.topic(name)
    own = _OWN.format(1)
    calls: list[list[dict[str, Any]]] = [
        [{"key": "a", "value": "v"}],
        [{"key": "b", "size": 3000}],
        [{"key": "c"}],
        [{"key": "d", "value": "v", "headers": [["one", "1"], ["two", "2"]]}],
        [{"key": f"e{number}", "size": 60 * number + 1} for number in range(9)],
        [{"key": "f", "value": "v", "headers": [["traceparent", own]]}],
    ]
    for messages in calls:
        answer = app.do("produce", topic=topic, messages=messages)
        assert not answer["error"], answer
    total = sum(map(len, calls))
    answer = app.do("consume", how="read", topic=topic, count=total)
    assert not answer["error"], answer

    def spans(kind: Span.SpanKind.ValueType) -> list[Span]:
        return [
            span
            for span in daemon.spans_of(app.pid)
            if span.kind == kind and attributes(span).get("messaging.destination.name") == topic
        ]

    def called() -> dict[bytes, bytes]:
        """Trace by the consumer's span: of what was done with its message, at the other end of the HTTP request."""
        made = {span.span_id: span for span in daemon.spans_of(app.pid) if span.kind == Span.SPAN_KIND_CLIENT}
        return {
            made[span.parent_span_id].parent_span_id: span.trace_id
            for span in daemon.spans_of(app.pid)
            if span.kind == Span.SPAN_KIND_SERVER and span.parent_span_id in made
        }

    eventually(lambda: len(spans(Span.SPAN_KIND_CONSUMER)) >= total, "the spans of all messages")
    eventually(lambda: len(spans(Span.SPAN_KIND_PRODUCER)) >= len(calls), "the spans of all calls")
    eventually(lambda: len(called()) >= total, "the spans of what was done with the messages")
    by_id = {span.span_id: span for span in spans(Span.SPAN_KIND_PRODUCER)}
    by_key = {
        attributes(span)["messaging.kafka.message.key"]: span for span in spans(Span.SPAN_KIND_CONSUMER)
    }
    for received in answer["messages"]:
        span = by_key[received["key"]]
        carried = [value for header, value in received["headers"] or [] if header == "traceparent"]
        assert len(carried) == 1, answer["messages"]
        assert called()[span.span_id] == span.trace_id
        if carried == [own]:
            assert span.parent_span_id.hex() == own.split("-")[2]
            continue
        sender = by_id[span.parent_span_id]
        assert carried[0] == f"00-{sender.trace_id.hex()}-{sender.span_id.hex()}-01", received
        assert span.trace_id == sender.trace_id
        key = attributes(sender).get("messaging.kafka.message.key")
        assert (received["key"] == key) if key else received["key"].startswith("e"), (received, key)
    return total - 1


if __name__ == "__main__":
    sys.exit(main())
