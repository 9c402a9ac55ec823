"""The metrics for whoever asks: Prometheus's text format over HTTP, by its own client library.

Import it late: it takes 11 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agent.metrics.instruments import Instrument, Kind, Point
from agent.spans.delivery import BOUNDS, Duration

_UNITS = {"s": "seconds", "By": "bytes"}


def prometheus_name(instrument: Instrument) -> str:
    """Give the metric's name as OpenTelemetry's compatibility document wants it: unit last, no dots."""
    name = instrument.name.replace(".", "_")
    unit = _UNITS.get(instrument.unit)
    return f"{name}_{unit}" if unit else name


class PrometheusEndpoint:
    """An HTTP server with /metrics, in a thread of its own."""

    def __init__(self, host: str, port: int, gather: Callable[[], Iterable[Point]]) -> None:
        """Listen. Raises OSError if the address can't be used."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(gather))
        self._server, self._thread = start_http_server(port, host, registry)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Collector(Collector):
    def __init__(self, gather: Callable[[], Iterable[Point]]) -> None:
        self._gather = gather

    def collect(self) -> Iterable[Metric]:
        by_instrument: dict[Instrument, list[Point]] = {}
        for point in self._gather():
            by_instrument.setdefault(point.instrument, []).append(point)
        return [_family(instrument, points) for instrument, points in by_instrument.items()]


def _family(instrument: Instrument, points: list[Point]) -> Metric:
    name = prometheus_name(instrument)
    keys = list(dict.fromkeys(key for point in points for key in point.attributes))
    labels = [key.replace(".", "_") for key in keys]
    kinds = {Kind.COUNTER: CounterMetricFamily, Kind.UPDOWNCOUNTER: GaugeMetricFamily}
    family: Any
    if instrument.kind is Kind.HISTOGRAM:
        family = HistogramMetricFamily(name, instrument.meaning, labels=labels)
    else:
        family = kinds[instrument.kind](name, instrument.meaning, labels=labels)
    for point in points:
        values = [str(point.attributes.get(key, "")) for key in keys]
        if isinstance(point.value, Duration):
            bounds = [*map(str, BOUNDS), "+Inf"]
            counts = accumulate(point.value.counts)
            family.add_metric(values, list(zip(bounds, counts, strict=True)), point.value.total)
        else:
            family.add_metric(values, point.value)
    return family  # type: ignore[no-any-return]
