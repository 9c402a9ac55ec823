"""OTLP over gRPC, through the OpenTelemetry exporter's channel.

Import it late: gRPC and the exporter take 0.3 s and 15 MB.

`OTLPExporterMixin` makes the channel (endpoint, TLS, compression, user agent) and makes it anew. Its own loop
around the call isn't used: it builds requests from SDK spans, throws the response away and with it what the
collector rejected, tries RESOURCE_EXHAUSTED again although the specification says not to, and writes to the
log each time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.grpc.exporter import OTLPExporterMixin
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.semconv._incubating.attributes.otel_attributes import OtelComponentTypeValues

from agent import __version__
from agent.config import Compression, Destination, uses_tls
from agent.spans.delivery import Failed, Outcome
from agent.spans.otlp import Chunk, encode_request
from agent.spans.signals import TRACES, Signal

# "OTLP/gRPC Response", table of retryable codes. RESOURCE_EXHAUSTED is one only where the server says when.
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
# After these the connection itself is in doubt.
_RECONNECT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_COMPRESSION = {
    Compression.NONE: grpc.Compression.NoCompression,
    Compression.GZIP: grpc.Compression.Gzip,
}


class _BytesStub:
    """A signal's stub for requests that are bytes already."""

    def __init__(self, signal: Signal, channel: grpc.Channel) -> None:
        self.Export: Callable[..., Any] = channel.unary_unary(
            signal.grpc_method, request_serializer=None, response_deserializer=signal.parse
        )


class GrpcTransport(OTLPExporterMixin[Any, Any, Any, Any]):
    """A channel to the collector, ready when made; the connection itself is made with the first request."""

    # The base makes and names these, without types.
    _channel: Any
    _client: Any

    def __init__(self, export: Destination, signal: Signal = TRACES) -> None:
        """Open the channel. Raises OSError if a certificate can't be read."""
        self._export_settings = export
        self._otlp_signal = signal
        tls = uses_tls(export)
        super().__init__(
            stub=functools.partial(_BytesStub, signal),
            result=SpanExportResult,
            endpoint=export.endpoint,
            insecure=not tls,
            credentials=_credentials(export) if tls else None,
            timeout=export.timeout,
            compression=_COMPRESSION[export.compression],
            component_type=OtelComponentTypeValues.OTLP_GRPC_SPAN_EXPORTER,
            channel_options=(("grpc.primary_user_agent", f"gospan/{__version__}"),),
        )
        # Not by the argument: where it is empty, the base reads the environment, which the configuration
        # outranks.
        self._headers = export.headers

    def send(self, chunks: Iterable[Chunk], timeout: float) -> Outcome:
        """Send one request of spans and wait for the answer, for `timeout` seconds at most. Raises nothing."""
        return self.post(encode_request(chunks), timeout)

    def post(self, body: bytes, timeout: float) -> Outcome:
        """Send one encoded request and wait for the answer, for `timeout` seconds at most. Raises nothing."""
        try:
            response = self._client.Export(body, metadata=self._headers, timeout=timeout)
        except grpc.RpcError as error:
            return _failure(error)
        except ValueError as error:  # "Cannot invoke RPC on closed channel!", at shutdown
            return Failed(code="CANCELLED", message=str(error), retryable=True)
        return self._otlp_signal.accepted(response)

    def reconnect(self) -> None:
        """Make a new channel: addresses are looked up again, and renewed certificates read."""
        if not self._insecure:
            # A certificate that is being replaced isn't there for a moment: keep the one we have.
            with contextlib.suppress(OSError):
                self._credentials = _credentials(self._export_settings)
        self._channel.close()
        self._initialize_channel_and_stub()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the channel; a request on its way ends at once, as CANCELLED. Safe from any thread."""
        self._channel.close()

    # The base's own way to send, which isn't used.

    @property
    def _exporting(self) -> str:
        return self._otlp_signal.name

    def _translate_data(self, data: object) -> NoReturn:
        raise NotImplementedError

    def _count_data(self, data: object) -> NoReturn:
        raise NotImplementedError


def _credentials(export: Destination) -> grpc.ChannelCredentials:
    """Read the certificates. Without one to trust, the system's authorities are trusted.

    gRPC would trust the list it brings along, and with it none of a company's own authorities.
    """
    import ssl  # OpenSSL takes 5 MB, and here it is asked only where the system keeps its authorities

    def read(name: str | None) -> bytes | None:
        return Path(name).read_bytes() if name else None

    return grpc.ssl_channel_credentials(
        root_certificates=read(export.certificate or ssl.get_default_verify_paths().cafile),
        private_key=read(export.client_key),
        certificate_chain=read(export.client_certificate),
    )


def _failure(error: Any) -> Failed:
    """Read an error; grpc raises a private class that is RpcError and Call in one."""
    code: grpc.StatusCode = error.code()
    delay = _retry_delay(error.trailing_metadata() or ())
    return Failed(
        code=code.name,
        message=error.details() or "",
        retryable=code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay is not None),
        delay=delay,
        reconnect=code in _RECONNECT,
    )


def _retry_delay(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Find the RetryInfo that tells when to try again, in seconds; None if there is none.

    It is one of the details of the google.rpc.Status that gRPC carries in grpc-status-details-bin. A few
    servers send it by itself.
    """
    details = dict(metadata)
    info = RetryInfo()
    try:
        for detail in Status.FromString(details.get("grpc-status-details-bin", b"")).details:
            if detail.Unpack(info):
                return float(info.retry_delay.ToNanoseconds() / 1e9)
        if "google.rpc.retryinfo-bin" in details:
            info.ParseFromString(details["google.rpc.retryinfo-bin"])
            return float(info.retry_delay.ToNanoseconds() / 1e9)
    except DecodeError:
        pass  # not ours to judge: the code alone decides
    return None
