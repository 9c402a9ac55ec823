"""Points as an OTLP request (opentelemetry/proto/metrics/v1/metrics.proto), sums and histograms since the start."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from agent import __version__
from agent.metrics.instruments import Attributes, Instrument, Kind, Point
from agent.spans.delivery import BOUNDS, Duration
from agent.spans.resource import SCHEMA_URL
from agent.spans.signals import Signal

METRICS = Signal(
    name="metrics",
    grpc_method="/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    http_path="/v1/metrics",
    response=ExportMetricsServiceResponse,
    rejected="rejected_data_points",
)

SCOPE = "gospan"


def encode(points: Iterable[Point], resource: Resource, *, started: int, now: int) -> bytes:
    """Encode a request; `started` and `now` are Unix times in ns."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add(resource=resource, schema_url=SCHEMA_URL)
    scope = group.scope_metrics.add(schema_url=SCHEMA_URL)
    scope.scope.name, scope.scope.version = SCOPE, __version__
    metrics: dict[Instrument, Metric] = {}
    for point in points:
        instrument = point.instrument
        metric = metrics.get(instrument)
        if metric is None:
            metric = metrics[instrument] = scope.metrics.add(
                name=instrument.name, unit=instrument.unit, description=instrument.meaning
            )
        _add(metric, point, started, now)
    return request.SerializeToString()


def _add(metric: Metric, point: Point, started: int, now: int) -> None:
    attributes = _attributes(point.attributes)
    value = point.value
    if isinstance(value, Duration):
        metric.histogram.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        metric.histogram.data_points.add(
            attributes=attributes,
            start_time_unix_nano=started,
            time_unix_nano=now,
            count=sum(value.counts),
            sum=value.total,
            bucket_counts=value.counts,
            explicit_bounds=BOUNDS,
        )
        return
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    metric.sum.is_monotonic = point.instrument.kind is Kind.COUNTER
    added = metric.sum.data_points.add(
        attributes=attributes, start_time_unix_nano=started, time_unix_nano=now
    )
    if isinstance(value, int):
        added.as_int = value
    else:
        added.as_double = value


def _attributes(attributes: Attributes) -> list[KeyValue]:
    return [
        KeyValue(
            key=key,
            value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value),
        )
        for key, value in attributes.items()
    ]
