"""Several collectors at a time, over gRPC and HTTP, real ones: each gets everything, whatever becomes of the others."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial

from agent.config import Destination, Protocol
from agent.log import StateLog
from agent.spans.sinks import Exporters, open_otlp
from tests.spans.collector import Collector, HttpCollector, serving, serving_http
from tests.spans.exporting import FAST, SETTINGS, Recorder, origin, spans, wait_until


def test_destination_that_is_down_holds_up_no_other(recorder: Recorder) -> None:
    with (
        serving(Collector()) as by_grpc,
        serving_http(HttpCollector()) as by_http,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        settings = replace(
            SETTINGS,
            protocol=Protocol.GRPC,
            endpoint=f"http://127.0.0.1:{by_grpc.port}",
            also=(
                Destination(endpoint=f"http://127.0.0.1:{by_http.port}", protocol=Protocol.HTTP),
                Destination(
                    endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}",
                    protocol=Protocol.HTTP,
                    timeout=0.2,
                ),
                Destination(endpoint="http://127.0.0.1:9", headers=(("api-key", "other"),)),
            ),
        )
        sink = Exporters(settings, open_otlp, log=StateLog(recorder), backoff=FAST)

        def both_have(number: int) -> bool:
            return len(by_grpc.numbers) == len(by_http.numbers) == number

        for first in range(0, 1500, 100):
            sink.put(origin(), spans(range(first, first + 100)))
            wait_until(partial(both_have, first + 100))
        assert by_grpc.numbers == by_http.numbers == list(range(1500))
        assert "api-key" not in by_grpc.metadata[0]
        wait_until(lambda: all(status.failing_since for status in sink.status()[2:]))
        assert not sink.shutdown(0.3)
        states = [(status.sent, status.failing_since is None, status.dropped) for status in sink.status()]
        lost = {"queue_full": 500, "shutdown": 1000}
        assert states == [(1500, True, {}), (1500, True, {}), (0, False, lost), (0, False, lost)]
    assert sum("don't reach" in line for line in recorder.lines) == 2


def test_destinations_that_come_and_go(recorder: Recorder) -> None:
    with serving(Collector()) as first, serving(Collector()) as second, serving(Collector()) as third:
        one, two, three = (
            Destination(endpoint=f"http://127.0.0.1:{each.port}") for each in (first, second, third)
        )
        settings = replace(SETTINGS, protocol=Protocol.GRPC, endpoint=one.endpoint, schedule_delay=60.0)
        sink = Exporters(replace(settings, also=(two,)), open_otlp, log=StateLog(recorder), backoff=FAST)
        sink.put(origin(), spans(range(10)))
        sink.reconfigure(replace(settings, also=(three,)))
        sink.put(origin(), spans(range(10, 20)))
        assert sink.flush(10)
        assert first.numbers == list(range(20))
        wait_until(lambda: second.numbers == list(range(10)))
        assert third.numbers == list(range(10, 20))
        assert [status.destination for status in sink.status()] == [one.endpoint, three.endpoint]
        assert sink.shutdown(5)
