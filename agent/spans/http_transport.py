"""OTLP over HTTP with binary protobuf ("OTLP/HTTP" in the OTLP specification), by urllib3.

Import it late: urllib3 and TLS take 10 MB.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import zlib
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

import urllib3
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    SSLError,
    TimeoutError,  # noqa: A004 -- urllib3's own, which is no OSError
)

from agent import __version__
from agent.config import Compression, Destination, uses_tls
from agent.config.destination import request_url
from agent.spans.delivery import Accepted, Failed, Outcome
from agent.spans.otlp import Chunk, encode_request
from agent.spans.signals import TRACES, Signal

_RETRYABLE = frozenset({429, 502, 503, 504})
"""From "OTLP/HTTP Response", "Retryable Response Codes"."""

_LONGEST_ANSWER = 64 << 10
"""Bytes of an answer that are read; the rest is of no use."""

_PROTOBUF = "application/x-protobuf"
# Level 1 takes a third of the time of the default (1.2 us a span), for requests of spans that are 3 % larger.
_GZIP_LEVEL = 1


class HttpTransport:
    """A connection to the collector that is kept alive, made with the first request."""

    def __init__(self, destination: Destination, signal: Signal = TRACES) -> None:
        """Make ready. Raises OSError (ssl.SSLError is one) if a certificate can't be used."""
        self._destination = destination
        self._signal = signal
        self._host, self._port, path = request_url(destination, signal.http_path)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._url = f"{'https' if uses_tls(destination) else 'http'}://{host}:{self._port}{path}"
        self._headers = {
            **dict(destination.headers),
            "content-type": _PROTOBUF,
            "user-agent": f"gospan/{__version__}",
        }
        self._compressed = destination.compression is Compression.GZIP
        if self._compressed:
            self._headers["content-encoding"] = "gzip"
        self._connections = _Connections()
        self._closed = False
        self._context = _context(destination) if uses_tls(destination) else None
        self._manager = self._open()

    def _open(self) -> urllib3.PoolManager:
        scheme = "https" if self._context else "http"
        options: dict[str, Any] = {"ssl_context": self._context} if self._context else {}
        proxy = _proxy(scheme, self._host, self._port)
        manager = (
            urllib3.ProxyManager(proxy, maxsize=1, **options)
            if proxy
            else urllib3.PoolManager(maxsize=1, **options)
        )
        pool = manager.connection_from_host(self._host, self._port, scheme)
        pool.ConnectionCls = self._connections.followed(HTTPSConnection if self._context else HTTPConnection)
        return manager

    def send(self, chunks: Iterable[Chunk], timeout: float) -> Outcome:
        """Send one request of spans and wait for the answer, for `timeout` seconds at most. Raises nothing."""
        return self.post(encode_request(chunks), timeout)

    def post(self, body: bytes, timeout: float) -> Outcome:
        """Send one encoded request and wait for the answer, for `timeout` seconds at most. Raises nothing."""
        if self._compressed:
            body = _gzip(body)
        # urllib3's limits are for each step; a server that answers byte by byte keeps within them for ever.
        with self._limited(timeout) as expired:
            try:
                response = self._manager.urlopen(
                    "POST",
                    self._url,
                    body=body,
                    headers=self._headers,
                    timeout=urllib3.Timeout(total=timeout),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
                with response:
                    data = response.read(_LONGEST_ANSWER, decode_content=True)
                    if not response.read(1):
                        response.release_conn()
                # Headers that end because the connection was cut look like headers that end.
                if expired.is_set():
                    raise TimeoutError
                return self._outcome(response, data)
            except (HTTPError, OSError, ValueError) as error:
                return _failure(error, expired=expired.is_set(), closed=self._closed)

    @contextlib.contextmanager
    def _limited(self, timeout: float) -> Iterator[threading.Event]:
        """Cut the connection off after `timeout` seconds; tell by the event that this was done."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._connections.cut()

        timer = threading.Timer(timeout, expire)
        timer.daemon = True
        timer.start()
        try:
            yield expired
        finally:
            timer.cancel()

    def _outcome(self, response: urllib3.BaseHTTPResponse, data: bytes) -> Outcome:
        status = response.status
        is_protobuf = response.headers.get("content-type", "").partition(";")[0].strip() == _PROTOBUF
        if 200 <= status < 300:
            with contextlib.suppress(DecodeError):
                return self._signal.accepted(self._signal.parse(data if is_protobuf else b""))
            return Accepted()
        message = ""
        if is_protobuf:
            with contextlib.suppress(DecodeError):
                message = str(Status.FromString(data).message)
        elif response.headers.get("content-type", "").startswith("text/plain"):
            message = data[:200].decode("utf-8", "replace").strip()
        if 300 <= status < 400:
            message = f"it redirects to {response.headers.get('location', 'nowhere')}"
        return Failed(
            code=f"HTTP {status}",
            message=message or _phrase(status),
            retryable=status in _RETRYABLE,
            delay=_retry_after(response),
        )

    def reconnect(self) -> None:
        """Give up the connection: addresses are looked up again, and renewed certificates read."""
        if self._context is not None:
            # A certificate that is being replaced isn't there for a moment: keep the one we have.
            with contextlib.suppress(OSError):
                self._context = _context(self._destination)
        self._manager.clear()
        self._manager = self._open()

    def close(self) -> None:
        """Close the connection; a request on its way ends at once, as CANCELLED. Safe from any thread."""
        self._closed = True
        self._connections.cut()


class _Connections:
    """Follows the one connection that is open, so that another thread can cut it off."""

    def __init__(self) -> None:
        self._open: Any = None

    def followed(self, kind: type[HTTPConnection]) -> type[Any]:
        """Make a class of connections that is told of here."""
        followed_by = self

        class Followed(kind):  # type: ignore[misc,valid-type]
            def connect(self) -> None:
                followed_by._open = self
                super().connect()

        return Followed

    def cut(self) -> None:
        """Shut the connection: whoever waits for it sees its end."""
        connection = self._open
        plain = getattr(connection, "sock", None)
        if plain is not None:
            with contextlib.suppress(OSError, ValueError):
                # Not SSLSocket.shutdown: that one drops the TLS state, which the other thread is using.
                socket.socket.shutdown(plain, socket.SHUT_RDWR)


def _context(destination: Destination) -> ssl.SSLContext:
    """Trust and show what is configured; without authorities, trust the system's."""
    context = ssl.create_default_context(cafile=destination.certificate or None)
    if destination.client_certificate:
        context.load_cert_chain(destination.client_certificate, destination.client_key)
    return context


def _proxy(scheme: str, host: str, port: int) -> str | None:
    """Find the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY want for a host."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    return None if proxy_bypass(f"{host}:{port}") else getproxies().get(scheme)


def _gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return compressor.compress(body) + compressor.flush()


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    """Read when the server wants us back, in seconds: a number of them, or a date."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    with contextlib.suppress(InvalidHeader, OverflowError):
        return urllib3.Retry().parse_retry_after(value)
    return None


def _failure(error: Exception, *, expired: bool, closed: bool) -> Failed:
    """Name what went wrong with a connection; all of that may pass, and wants a new connection."""
    if closed:
        code, message = "CANCELLED", "the connection was closed"
    elif expired or (
        # What couldn't be made at all counts as a timeout too, in urllib3.
        isinstance(error, TimeoutError | socket.timeout) and not isinstance(error, NewConnectionError)
    ):
        code, message = "TIMEOUT", "no answer in time"
    else:
        code, message = _named(error)
    return Failed(code=code, message=message, retryable=True, reconnect=True)


_CODES: tuple[tuple[type[Exception], str], ...] = (
    (ProxyError, "PROXY"),
    (SSLError, "TLS"),
    (ssl.SSLError, "TLS"),
    (NameResolutionError, "UNREACHABLE"),
    (NewConnectionError, "UNREACHABLE"),
    (ProtocolError, "CLOSED"),
    (OSError, "CLOSED"),
)


def _named(error: Exception) -> tuple[str, str]:
    code = next((code for kind, code in _CODES if isinstance(error, kind)), type(error).__name__)
    cause: BaseException = error
    while (cause.__cause__ or cause.__context__) and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__ or cause
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        text = f"its certificate isn't trusted, {cause.verify_message}"
    return code, text
