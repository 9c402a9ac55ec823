"""A collector of metrics: a real gRPC server with the MetricsService."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from tests.support.daemon import attributes


class MetricsCollector(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps the requests, with their headers."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, Any]] = []
        self.port = 0

    def Export(  # noqa: N802
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        self.requests.append(request)
        self.headers.append(dict(context.invocation_metadata()))
        return ExportMetricsServiceResponse()

    def values(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """What the last request says: for each metric its points, attributes and value (of a histogram, its count)."""
        found: dict[str, list[tuple[dict[str, Any], Any]]] = {}
        (resource,) = self.requests[-1].resource_metrics
        (scope,) = resource.scope_metrics
        for metric in scope.metrics:
            points: list[tuple[dict[str, Any], Any]] = [
                (attributes(number), number.as_int or number.as_double) for number in metric.sum.data_points
            ]
            for one in metric.histogram.data_points:
                assert sum(one.bucket_counts) == one.count
                assert len(one.bucket_counts) == len(one.explicit_bounds) + 1
                points.append((attributes(one), one.count))
            found[metric.name] = points
        return found


@contextmanager
def collecting() -> Iterator[MetricsCollector]:
    collector = MetricsCollector()
    server = grpc.server(ThreadPoolExecutor(2))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
