"""What a real OpenTelemetry Collector receives from the exporter, told by what it passes on to a collector of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.config import Compression, Destination, Export, Protocol
from agent.metrics.instruments import CPU_TIME, EXPORT_TIME, MEMORY, Point
from agent.metrics.otlp import METRICS, encode
from agent.spans.delivery import BOUNDS, Accepted, Duration
from agent.spans.otlp import Chunk, encode_spans
from agent.spans.sinks import Exporters, open_otlp
from tests.metrics.collector import MetricsCollector, collecting
from tests.spans.collector import Authority, Collector, make_authority, serving
from tests.spans.exporting import origin, wait_until
from tests.support import real_collector


def full_span(number: int) -> Span:
    """Make a span with everything that ours have."""
    return Span(
        trace_id=number.to_bytes(15, "big") + b"t",
        span_id=number.to_bytes(7, "big") + b"s",
        parent_span_id=bytes(7) + b"p",
        flags=0x301,
        name="GET /items/{id}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1_700_000_000_000_000_000 + number,
        end_time_unix_nano=1_700_000_000_000_000_500 + number,
        attributes=[
            KeyValue(key="url.path", value=AnyValue(string_value=f"/items/{number}")),
            KeyValue(key="http.response.status_code", value=AnyValue(int_value=500)),
        ],
        status=Status(code=Status.STATUS_CODE_ERROR),
    )


@dataclass
class Collecting:
    """The Collector, and the collectors that get what it got."""

    ports: dict[tuple[Protocol, str], int]
    beyond: Collector
    metrics: MetricsCollector


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def collector(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    directory = tmp_path_factory.mktemp("real")
    with serving(Collector()) as beyond, collecting() as metrics:
        ports = {"traces": beyond.port, "metrics": metrics.port}
        with real_collector.running(directory, ports, authority) as real:
            yield Collecting(real.ports, beyond, metrics)


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("kind", ["plain", "tls", "mutual"])
@pytest.mark.parametrize("compression", list(Compression))
def test_it_receives_what_was_sent(
    collector: Collecting, authority: Authority, protocol: Protocol, kind: str, compression: Compression
) -> None:
    scheme = "http" if kind == "plain" else "https"
    settings = Export(
        endpoint=f"{scheme}://localhost:{collector.ports[protocol, kind]}",
        protocol=protocol,
        compression=compression,
        certificate="" if kind == "plain" else str(authority.certificate),
        batch_size=100,
    )
    if kind == "mutual":
        key, certificate = authority.issue("agent")
        settings = replace(settings, client_key=str(key), client_certificate=str(certificate))
    sent: list[Chunk] = [
        (origin("shop"), encode_spans(map(full_span, range(150)))),
        (origin("billing", "google.golang.org/grpc"), encode_spans(map(full_span, range(150, 250)))),
    ]
    with collector.beyond.lock:
        collector.beyond.requests.clear()
    sink = Exporters(settings, open_otlp)
    for one, encoded in sent:
        sink.put(one, encoded)
    assert sink.shutdown(20), sink.status()
    wait_until(lambda: len(collector.beyond.numbers) >= 250)
    got: dict[tuple[bytes, bytes, str], list[Span]] = {}
    for request in collector.beyond.requests:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                where = (
                    resource.resource.SerializeToString(),
                    scope.scope.SerializeToString(),
                    scope.schema_url,
                )
                got.setdefault(where, []).extend(scope.spans)
    assert got == {
        (one.resource, one.scope, one.schema_url): list(map(Span.FromString, encoded))
        for one, encoded in sent
    }
    assert [(status.sent, status.dropped, status.retries) for status in sink.status()] == [(250, {}, 0)]


@pytest.mark.parametrize("protocol", list(Protocol))
def test_it_receives_metrics(collector: Collecting, protocol: Protocol) -> None:
    duration = Duration([0, 2, *[0] * (len(BOUNDS) - 1)], 0.015)
    points = [
        Point(MEMORY, 70 << 20),
        Point(CPU_TIME, 1.5, {"cpu.mode": "user"}),
        Point(CPU_TIME, 0.5, {"cpu.mode": "system"}),
        Point(EXPORT_TIME, duration, {"server.address": "localhost", "server.port": 4317}),
    ]
    name = KeyValue(key="service.name", value=AnyValue(string_value="gospan"))
    body = encode(points, Resource(attributes=[name]), started=1_700_000_000, now=1_700_000_001)
    before = len(collector.metrics.requests)
    settings = Destination(
        endpoint=f"http://localhost:{collector.ports[protocol, 'plain']}", protocol=protocol
    )
    transport = open_otlp(settings, METRICS)
    assert transport.post(body, 20) == Accepted()
    transport.close()
    wait_until(lambda: len(collector.metrics.requests) > before)
    assert collector.metrics.requests[-1] == ExportMetricsServiceRequest.FromString(body)
