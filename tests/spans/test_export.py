"""The exporter against a real gRPC server: nothing lost, nothing doubled, everything counted."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.config import Compression
from agent.spans.export import ExportStatus
from agent.spans.otlp import encode_spans
from tests.spans.collector import Collector, breaking_proxy, serving
from tests.spans.exporting import SETTINGS, Recorder, Start, origin, spans, to, total, wait_until


def aborting(code: grpc.StatusCode, message: str = "no") -> Callable[..., None]:
    def behave(_request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> None:
        context.abort(code, message)

    return behave


def test_what_arrives_is_what_was_put(start: Start, collector: Collector) -> None:
    exporter = start(to(collector, headers=(("api-key", "k1"),)))
    exporter.put(origin(), spans(range(30)))
    exporter.put(origin(scope="google.golang.org/grpc"), spans(range(30, 50)))
    exporter.put(origin("billing"), spans(range(50, 60)))
    exporter.put(origin(), spans(range(60, 70)))
    assert exporter.flush(5)
    (request,) = collector.requests
    shape = [
        (
            resource.resource.attributes[0].value.string_value,
            resource.schema_url,
            [
                (scope.scope.name, scope.scope.version, scope.schema_url, len(scope.spans))
                for scope in resource.scope_spans
            ],
        )
        for resource in request.resource_spans
    ]
    assert shape == [
        (
            "shop",
            "urn:s",
            [("net/http", "1.27", "urn:s", 40), ("google.golang.org/grpc", "1.27", "urn:s", 20)],
        ),
        ("billing", "urn:s", [("net/http", "1.27", "urn:s", 10)]),
    ]
    assert sorted(collector.numbers) == list(range(70))
    assert collector.spans[0].name == "GET /"
    assert collector.spans[0].kind == Span.SPAN_KIND_SERVER
    assert collector.metadata[0]["api-key"] == "k1"
    assert str(collector.metadata[0]["user-agent"]).startswith("gospan/")
    status = exporter.status()
    assert status == ExportStatus(
        destination=f"http://127.0.0.1:{collector.port}",
        sent=70,
        held=0,
        dropped={},
        requests=1,
        retries=0,
        capacity=1000,
        protocol="grpc",
        server={"server.address": "127.0.0.1", "server.port": collector.port},
        durations=status.durations,
    )
    assert sum(status.durations[""].counts) == 1


def test_batches_are_no_larger_than_configured_and_keep_order(start: Start, collector: Collector) -> None:
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(250)))
    exporter.put(origin("billing"), spans(range(250, 420)))
    exporter.put(origin(), [])
    assert exporter.flush(5)
    sizes = [
        sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        for request in collector.requests
    ]
    assert sizes == [100, 100, 100, 100, 20]
    assert collector.numbers == list(range(420))


def test_a_lone_span_waits_for_company_no_longer_than_the_delay(start: Start, collector: Collector) -> None:
    exporter = start(to(collector, schedule_delay=0.3))
    exporter.put(origin(), spans(range(1)))
    assert exporter.flush(5)  # the connection is made now
    began = time.monotonic()
    exporter.put(origin(), spans(range(1, 2)))
    wait_until(lambda: len(collector.numbers) == 2)
    assert 0.25 < collector.call_times[1] - began < 3


def test_large_spans_make_small_requests(start: Start, collector: Collector) -> None:
    exporter = start(to(collector))
    large = encode_spans(Span(name="x" * 1_000_000, start_time_unix_nano=number) for number in range(7))
    exporter.put(origin(), large)
    assert exporter.flush(10)
    assert sorted(collector.numbers) == list(range(7))
    assert max(request.ByteSize() for request in collector.requests) < 4 << 20
    assert len(collector.requests) == 3


def test_compression(start: Start, collector: Collector) -> None:
    exporter = start(to(collector, compression=Compression.GZIP))
    exporter.put(origin(), spans(range(100)))
    assert exporter.flush(5)
    assert collector.numbers == list(range(100))


def test_collector_that_is_down_and_comes_back(start: Start, recorder: Recorder) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    exporter = start(replace(SETTINGS, endpoint=f"http://127.0.0.1:{port}"))
    exporter.put(origin(), spans(range(600)))
    wait_until(lambda: exporter.status().retries >= 3)
    status = exporter.status()
    assert status.held == 600
    assert status.failing_since is not None
    assert status.last_error is not None
    assert status.last_error.startswith("UNAVAILABLE")
    exporter.put(origin(), spans(range(600, 1300)))  # 300 more than fit
    with serving(Collector(), address=f"127.0.0.1:{port}") as collector:
        assert exporter.flush(20)
        assert collector.numbers == list(range(1000))
        exporter.put(origin(), spans(range(2000, 2010)))
        assert exporter.flush(5)
    status = exporter.status()
    assert (status.sent, status.dropped, status.failing_since) == (1010, {"queue_full": 300}, None)
    first, *rest = recorder.lines
    assert first.startswith(f"Spans don't reach http://127.0.0.1:{port} (UNAVAILABLE")
    recovered, lost = sorted(rest)
    assert recovered.startswith(f"Spans reach http://127.0.0.1:{port} again, after ")
    assert recovered.endswith("; 300 spans were dropped meanwhile")
    assert lost == "Spans were dropped: 300 queue_full"


def test_collector_that_restarts_between_requests(start: Start) -> None:
    with serving(Collector()) as first:
        exporter = start(to(first))
        exporter.put(origin(), spans(range(100)))
        assert exporter.flush(5)
    exporter.put(origin(), spans(range(100, 300)))
    time.sleep(0.1)
    with serving(Collector(), address=f"127.0.0.1:{first.port}") as second:
        assert exporter.flush(20)
        assert second.numbers == list(range(100, 300))
    assert exporter.status().dropped == {}


def throttling(delay: Duration) -> Callable[..., None]:
    def behave(_request: object, context: grpc.ServicerContext) -> None:
        detail = AnyMessage()
        detail.Pack(RetryInfo(retry_delay=delay))
        status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")

    return behave


def test_retry_info_is_obeyed(start: Start, collector: Collector) -> None:
    collector.behaviours = [throttling(Duration(nanos=400_000_000))]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(10)))
    assert exporter.flush(5)
    assert collector.numbers == list(range(10))
    assert 0.4 <= collector.call_times[1] - collector.call_times[0] < 2
    assert (exporter.status().sent, exporter.status().retries, exporter.status().dropped) == (10, 1, {})


def test_retry_info_without_sense_means_the_usual_backoff(start: Start, collector: Collector) -> None:
    collector.behaviours = [throttling(Duration()), throttling(Duration(seconds=-5))]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(10)))
    assert exporter.flush(5)
    assert collector.numbers == list(range(10))
    assert all(second - first >= 0.01 for first, second in pairwise(collector.call_times))


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # no RetryInfo
    ],
)
def test_refusals_are_not_tried_again(
    start: Start, collector: Collector, recorder: Recorder, code: grpc.StatusCode
) -> None:
    collector.behaviours = [aborting(code, "not you"), aborting(code, "not you")]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(250)))
    assert exporter.flush(5)
    assert collector.calls == 3
    assert collector.numbers == list(range(200, 250))
    status = exporter.status()
    assert status.dropped == {f"not_retryable:{code.name}": 200}
    assert (status.sent, status.retries, status.last_error) == (50, 0, f"{code.name}: not you")
    assert sum("don't reach" in line for line in recorder.lines) == 1
    assert sum("again" in line for line in recorder.lines if "reach" in line and "don't" not in line) == 1


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    ],
)
def test_passing_failures_are_tried_again(start: Start, collector: Collector, code: grpc.StatusCode) -> None:
    collector.behaviours = [aborting(code)] * 3
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(150)))
    assert exporter.flush(10)
    assert collector.numbers == list(range(150))
    assert (exporter.status().retries, exporter.status().dropped) == (3, {})


def test_partial_success(start: Start, collector: Collector, recorder: Recorder) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=7, error_message="too old")
    collector.behaviours = [
        lambda _request, _context: ExportTraceServiceResponse(partial_success=partial),
        lambda _request, _context: ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=10**12)
        ),
    ]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(100)))
    assert exporter.flush(5)
    status = exporter.status()
    assert (status.sent, status.dropped, status.failing_since) == (93, {"rejected": 7}, None)
    assert status.last_error == "rejected: too old"
    assert recorder.lines == ["Spans were dropped: 7 rejected (too old)"]
    exporter.put(origin(), spans(range(10)))
    assert exporter.flush(5)
    assert (exporter.status().sent, exporter.status().dropped) == (93, {"rejected": 17})
    assert exporter.status().requests == 2


def test_slow_collector_holds_up_nobody_else(start: Start, collector: Collector) -> None:
    release = threading.Event()

    def stall(_request: object, _context: object) -> None:
        release.wait(10)

    collector.behaviours = [stall]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(100)))
    wait_until(lambda: collector.calls == 1)
    began = time.monotonic()
    for first in range(100, 2000, 100):
        exporter.put(origin(), spans(range(first, first + 100)))
    assert time.monotonic() - began < 1
    assert not exporter.flush(0.05)
    assert total(exporter.status()) == 2000
    assert exporter.status().dropped == {"queue_full": 1000}
    release.set()
    assert exporter.flush(5)
    assert collector.numbers == list(range(1000))


def test_request_that_takes_too_long_is_tried_again(start: Start, collector: Collector) -> None:
    collector.behaviours = [lambda _request, _context: time.sleep(0.5)]
    exporter = start(to(collector, timeout=0.2))
    exporter.put(origin(), spans(range(10)))
    assert exporter.flush(5)
    assert exporter.status().retries >= 1
    assert exporter.status().last_error is not None
    assert "DEADLINE_EXCEEDED" in str(exporter.status().last_error)
    assert exporter.status().sent == 10


def test_connection_closed_in_the_middle(start: Start, collector: Collector) -> None:
    """A proxy that breaks the first connections after some bytes; what was sent is sent again."""
    with breaking_proxy(collector.port, breaks=2) as port:
        exporter = start(replace(SETTINGS, endpoint=f"http://127.0.0.1:{port}"))
        exporter.put(origin(), spans(range(300)))
        assert exporter.flush(20)
        assert collector.numbers == list(range(300))
        assert exporter.status().retries >= 1
        assert exporter.status().sent == 300


def test_giving_up(start: Start) -> None:
    exporter = start(replace(SETTINGS, endpoint="http://127.0.0.1:9", give_up_after=0.3, batch_size=10))
    exporter.put(origin(), spans(range(10)))
    assert exporter.flush(10)
    assert exporter.status().dropped == {"gave_up": 10}


def test_shutdown_sends_what_is_left(start: Start, collector: Collector) -> None:
    exporter = start(to(collector, schedule_delay=60.0))
    exporter.put(origin(), spans(range(950)))
    exporter.put(origin(), spans(range(950, 960)))
    assert exporter.shutdown(5)
    assert collector.numbers == list(range(960))
    exporter.put(origin(), spans(range(5)))
    assert exporter.status().dropped == {"shutdown": 5}
    assert total(exporter.status()) == 965


def test_shutdown_of_a_stuck_exporter_ends_in_time(start: Start, collector: Collector) -> None:
    release = threading.Event()

    def stall(_request: object, _context: object) -> None:
        release.wait(10)

    collector.behaviours = [stall] * 5
    exporter = start(to(collector, timeout=60.0))
    exporter.put(origin(), spans(range(500)))
    wait_until(lambda: collector.calls == 1)
    began = time.monotonic()
    assert not exporter.shutdown(0.3)
    assert time.monotonic() - began < 2
    release.set()
    assert exporter.status().dropped == {"shutdown": 500}
    assert total(exporter.status()) == 500


def test_shutdown_while_the_collector_is_down(start: Start) -> None:
    exporter = start(replace(SETTINGS, endpoint="http://127.0.0.1:9"))
    exporter.put(origin(), spans(range(500)))
    wait_until(lambda: exporter.status().retries >= 1)
    began = time.monotonic()
    assert not exporter.shutdown(0.4)
    assert time.monotonic() - began < 2
    assert exporter.status().dropped == {"shutdown": 500}


def test_many_producers_nothing_lost_nothing_doubled(start: Start, collector: Collector) -> None:
    exporter = start(to(collector, queue_size=100_000, batch_size=512))

    def produce(thread: int) -> None:
        for first in range(0, 5000, 50):
            base = thread * 5000 + first
            exporter.put(origin(f"service {thread}"), spans(range(base, base + 50)))

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert exporter.flush(30)
    assert sorted(collector.numbers) == list(range(20_000))
    assert all(len(request.resource_spans) <= 4 for request in collector.requests)


# --- TLS ----------------------------------------------------------------------------------------------------


def test_unix_socket(start: Start, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/otlp.sock"
    with serving(Collector(), address=address) as collector:
        exporter = start(replace(SETTINGS, endpoint=address))
        exporter.put(origin(), spans(range(5)))
        assert exporter.flush(10)
        assert collector.numbers == list(range(5))


def test_headers_come_from_the_configuration_alone(
    start: Start, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "stray=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "false")
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(5)))
    assert exporter.flush(5)
    assert "stray" not in collector.metadata[0]
