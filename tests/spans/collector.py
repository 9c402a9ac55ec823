"""A collector: real servers of OTLP, by gRPC and HTTP, that can be told to misbehave."""

from __future__ import annotations

import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Behaviour = Callable[[ExportTraceServiceRequest, grpc.ServicerContext], ExportTraceServiceResponse | None]


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the requests it accepted. `behaviours` are used up first, one a request."""

    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    behaviours: list[Behaviour] = field(default_factory=list)
    calls: int = 0
    call_times: list[float] = field(default_factory=list)
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(  # noqa: N802
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        with self.lock:
            self.calls += 1
            self.call_times.append(time.monotonic())
            behaviour = self.behaviours.pop(0) if self.behaviours else None
        answer = behaviour(request, context) if behaviour else None
        with self.lock:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
        return answer or ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Span]:
        with self.lock:
            return [
                span
                for request in self.requests
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    @property
    def numbers(self) -> list[int]:
        """The start times of all accepted spans, which tests use to tell them apart."""
        return [span.start_time_unix_nano for span in self.spans]


@contextmanager
def serving(
    collector: Collector, *, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
) -> Iterator[Collector]:
    server = grpc.server(ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    if credentials is None:
        collector.port = server.add_insecure_port(address)
    else:
        collector.port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


HttpBehaviour = Callable[["HttpHandler"], None]
"""Handles a request by itself."""


@dataclass
class HttpCollector(Collector):
    """The same by HTTP. `paths` are those of the requests that were accepted."""

    http_behaviours: list[HttpBehaviour] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


class HttpHandler(BaseHTTPRequestHandler):
    """One connection of an HttpCollector."""

    protocol_version = "HTTP/1.1"
    collector: HttpCollector
    body: bytes

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["content-length"]))
        collector = self.collector
        with collector.lock:
            collector.calls += 1
            collector.call_times.append(time.monotonic())
            behaviour = collector.http_behaviours.pop(0) if collector.http_behaviours else HttpHandler.accept
        behaviour(self)

    def keep(self) -> None:
        """Count the request as accepted."""
        zipped = self.headers.get("content-encoding") == "gzip"
        body = gzip.decompress(self.body) if zipped else self.body
        collector = self.collector
        with collector.lock:
            collector.requests.append(ExportTraceServiceRequest.FromString(body))
            collector.metadata.append({name.lower(): value for name, value in self.headers.items()})
            collector.paths.append(self.path)

    def answer(self, status: int, body: bytes = b"", content_type: str = "application/x-protobuf") -> None:
        self.send_response(status)
        self.finish_answer(body, content_type)

    def finish_answer(self, body: bytes = b"", content_type: str = "application/x-protobuf") -> None:
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def accept(self, partial: ExportTraceServiceResponse | None = None) -> None:
        self.keep()
        self.answer(200, (partial or ExportTraceServiceResponse()).SerializeToString())

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving_http(
    collector: HttpCollector, *, port: int = 0, context: ssl.SSLContext | None = None
) -> Iterator[HttpCollector]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None:
            """A client that went away, or that we cut off."""

        def get_request(self) -> tuple[socket.socket, object]:
            connection, address = super().get_request()
            # The handshake is made by the connection's own thread, at its first read.
            if context is None:
                return connection, address
            return (
                context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False),
                address,
            )

    class Handler(HttpHandler):
        pass

    Handler.collector = collector
    server = Server(("127.0.0.1", port), Handler)
    collector.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Authority:
    """A private certificate authority that signs for localhost."""

    directory: Path

    @property
    def certificate(self) -> Path:
        return self.directory / "ca.pem"

    def issue(self, name: str) -> tuple[Path, Path]:
        """Make a key and a certificate, signed by this authority."""
        key, request, certificate = (self.directory / f"{name}.{suffix}" for suffix in ("key", "csr", "pem"))
        extensions = self.directory / f"{name}.ext"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", "-newkey", *CURVE, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.directory / "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate),
        )
        return key, certificate


CURVE = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_authority(directory: Path) -> Authority:
    directory.mkdir(parents=True, exist_ok=True)
    openssl(
        *("req", "-x509", "-newkey", *CURVE, "-days", "2", "-subj", "/CN=test authority"),
        *("-keyout", directory / "ca.key", "-out", directory / "ca.pem"),
    )
    return Authority(directory)


@contextmanager
def breaking_proxy(port: int, *, breaks: int) -> Iterator[int]:
    """Forward connections to a port, but cut the first few off after 300 bytes from the client."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, sink: socket.socket, budget: int | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536 if budget is None else min(budget, 65536)):
                sink.sendall(data)
                if budget is not None and (budget := budget - len(data)) <= 0:
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        number = 0
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                upstream = socket.create_connection(("127.0.0.1", port))
                budget = 300 if number < breaks else None
                number += 1
                for arguments in ((client, upstream, budget), (upstream, client, None)):
                    threads.append(threading.Thread(target=pump, args=arguments, daemon=True))
                    threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
