"""The agent's own metrics: as a collector receives them, as Prometheus reads them, as the documentation lists them."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from agent.config import Config, MetricsExporter, load
from agent.metrics.instruments import INSTRUMENTS, Kind
from agent.metrics.prometheus import prometheus_name
from tests.metrics.collector import collecting
from tests.spans.collector import Collector, serving
from tests.support.daemon import attributes, eventually, running

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_documentation_lists_them() -> None:
    rows = re.findall(
        r"^\| `([a-z_.]+)` \| (\w+) \| `([^`]+)` \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert rows == [(one.name, one.kind.value, one.unit, one.meaning) for one in INSTRUMENTS]


@pytest.mark.kernel
def test_otlp_and_prometheus() -> None:
    """One agent that reports both ways, asked for spans of its own making is another module's matter."""
    with collecting() as collector:
        settings = (
            f"metrics.endpoint=http://127.0.0.1:{collector.port}",
            "metrics.interval=200ms",
            "metrics.exporters=otlp,prometheus",
            "metrics.prometheus_port=0",
            "metrics.bpf_statistics=true",
        )
        with running(*settings) as daemon:
            eventually(lambda: len(collector.requests) >= 2, "metrics arrive")
            (said,) = (m["message"] for m in daemon.messages if "Prometheus finds" in m.get("message", ""))
            text = urllib3.request("GET", said.rpartition(" at ")[2], timeout=10).data.decode()
            daemon.stop()
    values = collector.values()
    known = {one.name: one for one in INSTRUMENTS}
    assert values.keys() <= known.keys()
    always = {name for name in known if name.startswith(("process.", "otel.sdk.")) and "duration" not in name}
    assert always <= values.keys()
    assert {"gospan.process.traced", "gospan.record.read", "gospan.bpf.map.memory"} <= values.keys()
    ((_, memory),) = values["process.memory.usage"]
    assert 20 << 20 < memory < 300 << 20
    assert {tuple(where.values()) for where, _ in values["process.cpu.time"]} == {("user",), ("system",)}
    (queue,) = (value for _, value in values["otel.sdk.processor.span.queue.capacity"])
    assert queue == 32768
    exporter = values["otel.sdk.exporter.span.inflight"][0][0]
    assert exporter["otel.component.type"] == "otlp_grpc_span_exporter"
    assert exporter["server.address"] == "127.0.0.1"
    runs = {where["gospan.bpf.program"]: value for where, value in values["gospan.bpf.program.runs"]}
    assert runs["process_exec"] + runs["process_exit"] >= 0
    resource = attributes(collector.requests[-1].resource_metrics[0].resource)
    assert (resource["service.name"], resource["process.pid"]) == ("gospan", daemon.process.pid)
    for metric in collector.requests[-1].resource_metrics[0].scope_metrics[0].metrics:
        assert (metric.unit, metric.description) == (known[metric.name].unit, known[metric.name].meaning)
        if known[metric.name].kind is not Kind.HISTOGRAM:
            assert metric.sum.is_monotonic == (known[metric.name].kind is Kind.COUNTER)

    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {prometheus_name(known[name]) for name in always} <= families.keys()
    assert families.keys() <= {prometheus_name(one) for one in INSTRUMENTS}
    (sample,) = families["process_memory_usage_bytes"].samples
    assert 20 << 20 < sample.value < 300 << 20


@pytest.mark.kernel
def test_a_collector_without_metrics_is_told_of_once() -> None:
    with serving(Collector()) as collector:
        endpoint = f"http://127.0.0.1:{collector.port}"
        with running(f"metrics.endpoint={endpoint}", "metrics.interval=100ms") as daemon:
            eventually(lambda: daemon.said(f"{endpoint} takes no metrics"), "the message")
            time.sleep(0.5)
            assert sum("takes no metrics" in one.get("message", "") for one in daemon.messages) == 1
            daemon.stop()


def configured(environ: dict[str, str], **flags: str) -> Config:
    return load(environ=environ, flags={name.replace("__", "."): value for name, value in flags.items()})


def test_metrics_go_where_spans_go() -> None:
    metrics = configured({}, export__endpoint="https://c:1", export__headers="api-key=a").metrics
    assert (metrics.endpoint, metrics.headers) == ("https://c:1", (("api-key", "a"),))
    assert metrics.exporters == (MetricsExporter.OTLP,)
    assert configured({}, export__sink="console").metrics.endpoint == ""


def test_metrics_with_a_collector_of_their_own() -> None:
    own = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:1"}
    metrics = configured(own, export__headers="api-key=a").metrics
    assert (metrics.endpoint, metrics.headers) == ("http://m:1", ())
    general = own | {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=a", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "100"}
    assert configured(general).metrics.headers == (("api-key", "a"),)
    http = {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:1/as/is",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
    }
    assert (configured(http).metrics.endpoint, configured(http).metrics.path) == ("http://m:1", "/as/is")


@pytest.mark.parametrize(
    ("value", "exporters"),
    [("none", ()), ("prometheus", ("prometheus",)), ("otlp, prometheus", ("otlp", "prometheus"))],
)
def test_standard_variables(value: str, exporters: tuple[str, ...]) -> None:
    environ = {
        "OTEL_METRICS_EXPORTER": value,
        "OTEL_METRIC_EXPORT_INTERVAL": "1500",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "::1",
        "OTEL_EXPORTER_PROMETHEUS_PORT": "9999",
    }
    metrics = configured(environ).metrics
    assert tuple(one.value for one in metrics.exporters) == exporters
    assert (metrics.interval, metrics.prometheus_host, metrics.prometheus_port) == (1.5, "::1", 9999)
