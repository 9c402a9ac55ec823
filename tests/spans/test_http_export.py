"""The exporter against a real HTTP server: what is lost is counted, and nothing else is lost."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from agent.config import Compression, Protocol
from agent.spans.http_transport import HttpTransport
from tests.spans import exporting
from tests.spans.collector import (
    Authority,
    HttpCollector,
    HttpHandler,
    breaking_proxy,
    make_authority,
    serving_http,
)
from tests.spans.exporting import Recorder, Start, origin, spans, starting, total, wait_until

SETTINGS = replace(exporting.SETTINGS, protocol=Protocol.HTTP)
to = partial(exporting.to, protocol=Protocol.HTTP)


@pytest.fixture
def start(recorder: Recorder) -> Iterator[Start]:
    with starting(recorder, HttpTransport) as make:
        yield make


@pytest.fixture
def collector() -> Iterator[HttpCollector]:
    with serving_http(HttpCollector()) as running:
        yield running


def answering(status: int, text: str = "", **headers: str) -> Callable[[HttpHandler], None]:
    def behave(handler: HttpHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.finish_answer(Status(message=text).SerializeToString())

    return behave


def test_what_arrives_is_what_was_put(start: Start, collector: HttpCollector) -> None:
    exporter = start(to(collector, headers=(("api-key", "k1"),)))
    connections = set()

    def remember(handler: HttpHandler) -> None:
        connections.add(handler.client_address)
        handler.accept()

    collector.http_behaviours = [remember] * 3
    exporter.put(origin(), spans(range(150)))
    exporter.put(origin("billing"), spans(range(150, 250)))
    assert exporter.flush(5)
    assert collector.numbers == list(range(250))
    assert collector.paths == ["/v1/traces"] * 3
    assert len(connections) == 1
    assert collector.metadata[0]["api-key"] == "k1"
    assert collector.metadata[0]["content-type"] == "application/x-protobuf"
    assert "content-encoding" not in collector.metadata[0]
    assert str(collector.metadata[0]["user-agent"]).startswith("gospan/")
    assert (exporter.status().sent, exporter.status().requests, exporter.status().dropped) == (250, 3, {})


def test_compression(start: Start, collector: HttpCollector) -> None:
    exporter = start(to(collector, compression=Compression.GZIP))
    exporter.put(origin(), spans(range(100)))
    assert exporter.flush(5)
    assert collector.numbers == list(range(100))
    assert collector.metadata[0]["content-encoding"] == "gzip"
    assert int(collector.metadata[0]["content-length"]) < collector.requests[0].ByteSize() / 3


@pytest.mark.parametrize(
    ("base", "path", "asked"),
    [
        ("", "", "/v1/traces"),
        ("/otlp", "", "/otlp/v1/traces"),
        ("/otlp/v1/traces", "", "/otlp/v1/traces"),
        ("/ignored", "/as/it/is", "/as/it/is"),
    ],
)
def test_paths(start: Start, collector: HttpCollector, base: str, path: str, asked: str) -> None:
    exporter = start(replace(SETTINGS, endpoint=f"http://127.0.0.1:{collector.port}{base}", path=path))
    exporter.put(origin(), spans(range(3)))
    assert exporter.flush(5)
    assert collector.paths == [asked]


def test_collector_that_is_down_and_comes_back(start: Start, recorder: Recorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    exporter = start(replace(SETTINGS, endpoint=f"http://127.0.0.1:{port}"))
    exporter.put(origin(), spans(range(600)))
    wait_until(lambda: exporter.status().retries >= 3)
    status = exporter.status()
    assert (status.held, status.last_error) == (600, "UNREACHABLE: Connection refused")
    assert status.failing_since is not None
    exporter.put(origin(), spans(range(600, 1300)))  # 300 more than fit
    with serving_http(HttpCollector(), port=port) as collector:
        assert exporter.flush(20)
        assert collector.numbers == list(range(1000))
    assert (exporter.status().sent, exporter.status().dropped) == (1000, {"queue_full": 300})
    assert sum("don't reach" in line for line in recorder.lines) == 1
    assert sum(f"reach http://127.0.0.1:{port} again" in line for line in recorder.lines) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_passing_failures_are_tried_again(start: Start, collector: HttpCollector, status: int) -> None:
    collector.http_behaviours = [answering(status, "busy")] * 3
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(150)))
    assert exporter.flush(10)
    assert collector.numbers == list(range(150))
    assert (exporter.status().retries, exporter.status().dropped) == (3, {})
    assert exporter.status().last_error == f"HTTP {status}: busy"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(start: Start, collector: HttpCollector, status: int, form: str) -> None:
    # A date has whole seconds: two of them mean at least one.
    value = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    collector.http_behaviours = [answering(status, retry_after=value)]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(10)))
    assert exporter.flush(10)
    assert 0.9 <= collector.call_times[1] - collector.call_times[0] < 4
    assert (exporter.status().sent, exporter.status().retries, exporter.status().dropped) == (10, 1, {})


def test_retry_after_without_sense_means_the_usual_backoff(start: Start, collector: HttpCollector) -> None:
    collector.http_behaviours = [
        answering(429, retry_after=value) for value in ("soon", "-7", "9" * 400, formatdate(0))
    ]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(10)))
    wait_until(lambda: collector.calls == 3)
    assert all(second - first >= 0.01 for first, second in pairwise(collector.call_times))
    exporter.shutdown(5)
    assert collector.numbers == list(range(10))


def test_a_shutdown_does_not_wait_as_long_as_the_server_asks(start: Start, collector: HttpCollector) -> None:
    """Nor where the server asks for it when the shutdown has begun already."""
    begun = threading.Event()

    def busy(handler: HttpHandler) -> None:
        begun.wait(5)
        answering(429, retry_after="300")(handler)

    collector.http_behaviours = [busy]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(10)))
    wait_until(lambda: collector.calls == 1)
    threading.Timer(0.2, begun.set).start()
    assert exporter.shutdown(5)
    assert collector.numbers == list(range(10))


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
def test_refusals_are_not_tried_again(
    start: Start, collector: HttpCollector, recorder: Recorder, status: int
) -> None:
    collector.http_behaviours = [answering(status, "not you")] * 2
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(250)))
    assert exporter.flush(5)
    assert collector.calls == 3
    assert collector.numbers == list(range(200, 250))
    assert exporter.status().dropped == {f"not_retryable:HTTP {status}": 200}
    assert (exporter.status().sent, exporter.status().last_error) == (50, f"HTTP {status}: not you")
    assert sum("don't reach" in line for line in recorder.lines) == 1


def test_words_of_servers_that_speak_no_protobuf(start: Start, collector: HttpCollector) -> None:
    def plain(handler: HttpHandler) -> None:
        handler.answer(400, b"wrong tenant\n", "text/plain; charset=utf-8")

    def page(handler: HttpHandler) -> None:
        handler.answer(404, b"<html>" + b"x" * 300_000, "text/html")

    collector.http_behaviours = [plain, page, answering(301, location="https://elsewhere/")]
    exporter = start(to(collector))
    words = []
    for _ in range(3):
        exporter.put(origin(), spans(range(10)))
        assert exporter.flush(5)
        words.append(exporter.status().last_error)
    assert words == [
        "HTTP 400: wrong tenant",
        "HTTP 404: Not Found",
        "HTTP 301: it redirects to https://elsewhere/",
    ]
    exporter.put(origin(), spans(range(10)))
    assert exporter.flush(5)
    assert exporter.status().sent == 10


def test_partial_success(start: Start, collector: HttpCollector, recorder: Recorder) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=7, error_message="too old")
    collector.http_behaviours = [
        lambda handler: handler.accept(ExportTraceServiceResponse(partial_success=partial))
    ]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(100)))
    assert exporter.flush(5)
    assert (exporter.status().sent, exporter.status().dropped) == (93, {"rejected": 7})
    assert recorder.lines == ["Spans were dropped: 7 rejected (too old)"]


def test_answers_that_are_not_protobuf_are_taken_for_success(start: Start, collector: HttpCollector) -> None:
    def rubbish(handler: HttpHandler) -> None:
        handler.keep()
        handler.answer(200, b"\xff\xff\xff")

    def json(handler: HttpHandler) -> None:
        handler.keep()
        handler.answer(200, b"{}", "application/json")

    collector.http_behaviours = [rubbish, json]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(200)))
    assert exporter.flush(5)
    assert collector.numbers == list(range(200))
    assert (exporter.status().sent, exporter.status().dropped) == (200, {})


def test_request_that_takes_too_long_is_tried_again(start: Start, collector: HttpCollector) -> None:
    def stall(handler: HttpHandler) -> None:
        time.sleep(0.5)
        handler.close_connection = True

    def dribble(handler: HttpHandler) -> None:
        handler.send_response(200)
        handler.flush_headers()
        for _ in range(40):
            handler.wfile.write(b"x-filler: 1\r\n")
            handler.wfile.flush()
            time.sleep(0.05)

    collector.http_behaviours = [stall, dribble]
    exporter = start(to(collector, timeout=0.2))
    exporter.put(origin(), spans(range(10)))
    wait_until(lambda: exporter.status().retries >= 1)
    assert exporter.status().last_error == "TIMEOUT: no answer in time"
    assert exporter.flush(5)
    assert collector.numbers == list(range(10))
    first, second, third = collector.call_times
    assert max(second - first, third - second) < 0.45


def test_connection_closed_in_the_middle(start: Start, collector: HttpCollector) -> None:
    with breaking_proxy(collector.port, breaks=2) as port:
        exporter = start(replace(SETTINGS, endpoint=f"http://127.0.0.1:{port}"))
        exporter.put(origin(), spans(range(300)))
        assert exporter.flush(20)
        assert collector.numbers == list(range(300))
        assert exporter.status().retries >= 1
        assert str(exporter.status().last_error).startswith("CLOSED")


def test_answer_cut_off_in_the_middle(start: Start, collector: HttpCollector) -> None:
    def cut(handler: HttpHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "100")
        handler.end_headers()
        handler.wfile.write(b"\0" * 10)
        handler.close_connection = True

    collector.http_behaviours = [cut]
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(10)))
    assert exporter.flush(5)
    assert collector.numbers == list(range(10))
    assert (exporter.status().sent, exporter.status().retries) == (10, 1)


def test_idle_connection_that_the_server_closed(start: Start, collector: HttpCollector) -> None:
    def last(handler: HttpHandler) -> None:
        handler.close_connection = True  # without saying so
        handler.accept()

    collector.http_behaviours = [last]
    exporter = start(to(collector))
    for _ in range(2):
        exporter.put(origin(), spans(range(10)))
        assert exporter.flush(5)
        time.sleep(0.1)
    assert (exporter.status().sent, exporter.status().retries) == (20, 0)


def test_shutdown_of_a_stuck_exporter_ends_in_time(start: Start, collector: HttpCollector) -> None:
    release = threading.Event()

    def stall(_handler: HttpHandler) -> None:
        release.wait(10)

    collector.http_behaviours = [stall] * 5
    exporter = start(to(collector, timeout=60.0))
    exporter.put(origin(), spans(range(500)))
    wait_until(lambda: collector.calls == 1)
    began = time.monotonic()
    assert not exporter.shutdown(0.3)
    assert time.monotonic() - began < 2
    release.set()
    assert exporter.status().dropped == {"shutdown": 500}
    assert total(exporter.status()) == 500


def test_queue_is_bounded_by_bytes_too(start: Start) -> None:
    exporter = start(replace(SETTINGS, endpoint="http://127.0.0.1:9", queue_bytes=1 << 20))
    large = [b"\x2a\x80\xc0\x0c" + b"x" * 200 * 1024] * 7  # Span.name
    exporter.put(origin(), large[:3])
    exporter.put(origin(), large[:4])
    exporter.put(origin(), spans(range(10)))
    status = exporter.status()
    assert (status.held, status.dropped) == (15, {"queue_full": 2})
    assert 1_000_000 < status.held_bytes <= 1 << 20
    exporter.shutdown(0)
    assert exporter.status().held_bytes == 0


# --- TLS ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def server_context(authority: Authority, *, client_required: bool = False) -> ssl.SSLContext:
    key, certificate = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if client_required:
        context.load_verify_locations(authority.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_tls_with_a_private_authority(start: Start, authority: Authority) -> None:
    with serving_http(HttpCollector(), context=server_context(authority)) as collector:
        for endpoint in (f"https://localhost:{collector.port}", f"localhost:{collector.port}"):
            exporter = start(replace(SETTINGS, endpoint=endpoint, certificate=str(authority.certificate)))
            exporter.put(origin(), spans(range(5)))
            assert exporter.flush(10)
        assert collector.numbers == [*range(5), *range(5)]


def test_certificates_are_read_again_after_a_failure(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(make_authority(tmp_path / "other").certificate.read_bytes())
    with serving_http(HttpCollector(), context=server_context(authority)) as collector:
        endpoint = f"https://localhost:{collector.port}"
        exporter = start(replace(SETTINGS, endpoint=endpoint, certificate=str(trusted)))
        exporter.put(origin(), spans(range(5)))
        wait_until(lambda: exporter.status().retries > 0)
        assert str(exporter.status().last_error).startswith("TLS: its certificate isn't trusted")
        assert exporter.status().held == 5
        trusted.write_bytes(authority.certificate.read_bytes())
        assert exporter.flush(10)
        assert collector.numbers == list(range(5))


def test_mutual_tls(start: Start, authority: Authority) -> None:
    key, certificate = authority.issue("agent")
    context = server_context(authority, client_required=True)
    with serving_http(HttpCollector(), context=context) as collector:
        settings = replace(
            SETTINGS, endpoint=f"https://localhost:{collector.port}", certificate=str(authority.certificate)
        )
        stranger = start(settings)
        stranger.put(origin(), spans(range(5)))
        wait_until(lambda: stranger.status().retries > 0)
        assert collector.calls == 0
        exporter = start(replace(settings, client_key=str(key), client_certificate=str(certificate)))
        exporter.put(origin(), spans(range(5)))
        assert exporter.flush(10)
        assert collector.numbers == list(range(5))


def test_proxy(start: Start, collector: HttpCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{collector.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    exporter = start(replace(SETTINGS, endpoint="http://collector.invalid:4318"))
    exporter.put(origin(), spans(range(5)))
    assert exporter.flush(10)
    assert collector.paths == ["http://collector.invalid:4318/v1/traces"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    exporter = start(to(collector))
    exporter.put(origin(), spans(range(5)))
    assert exporter.flush(10)
    assert collector.paths[1:] == ["/v1/traces"]
