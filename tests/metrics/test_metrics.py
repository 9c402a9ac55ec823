"""The agent's own metrics: as a collector receives them, as Prometheus reads them, as the documentation lists them."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from agent.config import Config, MetricsExporter, load
from agent.metrics.gather import Gatherer
from agent.metrics.instruments import CONTEXTS_SKIPPED, INSTRUMENTS, LOST, Kind
from agent.metrics.prometheus import prometheus_name
from agent.spans.sinks import NullSink
from tests.metrics.collector import collecting
from tests.spans.collector import Collector, serving
from tests.support.calls import calling
from tests.support.daemon import attributes, eventually, running
from tests.support.golang import build
from tests.support.tracing import tracing

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
        with running(*settings) as daemon, calling(build("http_calls")) as program:
            eventually(lambda: daemon.traces(str(build("http_calls"))), "the program is traced")
            program.ask("/handler", 3)
            eventually(lambda: len(daemon.spans_of(program.pid)) >= 9, "its spans arrive")
            seen = len(collector.requests)
            eventually(lambda: len(collector.requests) >= seen + 2, "metrics arrive")
            (said,) = (m["message"] for m in daemon.messages if "Prometheus finds" in m.get("message", ""))
            text = urllib3.request("GET", said.rpartition(" at ")[2], timeout=10).data.decode()
            daemon.stop()
    values = collector.values()
    known = {one.name: one for one in INSTRUMENTS}
    # All but those that tell of a loss, or of a request without context, if there is any.
    assert known.keys() - values.keys() <= {LOST.name, CONTEXTS_SKIPPED.name}
    assert values.keys() <= known.keys()
    libraries = {where["gospan.library"] for where, _ in values["gospan.span.created"]}
    assert {"net/http server", "net/http client"} <= libraries
    ((_, exported),) = values["otel.sdk.exporter.span.exported"]
    assert exported >= 9
    always = {name for name in known if name.startswith(("process.", "otel.sdk.")) and "duration" not in name}
    assert always <= values.keys()
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
def test_losses_and_requests_without_context() -> None:
    with tracing() as rig:
        counters = rig.programs.map("counters")
        number = list(rig.programs.counters()).index("contexts_no_room")
        counters.update(number.to_bytes(4, "little"), (7).to_bytes(counters.stored_size, "little"))
        gatherer = Gatherer(rig.programs, rig.tracer, rig.pipeline, NullSink(), lambda: {"evicted": 2})
        found = {point.instrument: point for point in gatherer.gather()}
    assert (found[LOST].value, found[LOST].attributes) == (2, {"gospan.lost.reason": "evicted"})
    skipped = found[CONTEXTS_SKIPPED]
    assert (skipped.value, skipped.attributes) == (7, {"gospan.skip.reason": "no_room"})


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
