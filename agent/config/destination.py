"""What a destination's settings mean together: address, TLS, and headers that lie in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from agent.config.choices import Protocol
from agent.config.exporting import Destination
from agent.config.values import Pairs, check_headers

HEADERS_CREDENTIAL = "otlp-headers"
"""The systemd credential with the headers of [export]."""

_DEFAULT_HTTP = "http://localhost:4318"
_GRPC_PORT = 4317
_MAX_HEADERS_FILE = 64 << 10

_CREDENTIALS = "$CREDENTIALS_DIRECTORY"
_FILES = ("headers_file", "certificate", "client_key", "client_certificate")

D = TypeVar("D", bound=Destination)


class DestinationError(ValueError):
    """One setting of a destination can't be used; `key` is its name, the message a sentence about it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def uses_tls(destination: Destination) -> bool:
    """Say whether requests are encrypted: https does, http and unix don't, `insecure` decides for the rest.

    From the OpenTelemetry specification, "OpenTelemetry Protocol Exporter", Insecure: it applies only to an
    endpoint without scheme.
    """
    if destination.endpoint.startswith(("http://", "unix:")):
        return False
    return destination.endpoint.startswith("https://") or not destination.insecure


def complete(destination: D, *, is_default: bool, environ: Mapping[str, str], credential: str = "") -> D:
    """Give a destination with its port, its default address, and the headers that lie in a file.

    `is_default` says that nobody gave an endpoint, `credential` names the systemd credential that may have headers.
    Raises DestinationError.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    files = {name: getattr(destination, name).replace(_CREDENTIALS, directory, 1) for name in _FILES}
    destination = replace(destination, **files) if directory else destination
    return replace(
        destination,
        endpoint=_endpoint(destination, is_default=is_default),
        headers=_headers(destination, environ, credential),
    )


def _endpoint(destination: Destination, *, is_default: bool) -> str:
    text = destination.endpoint
    if destination.path and not destination.path.startswith("/"):
        raise DestinationError("path", f"wants a path such as /v1/traces, not {destination.path!r}")
    if destination.protocol is Protocol.HTTP:
        if text.startswith("unix:"):
            raise DestinationError("endpoint", f"{text!r} is a socket, which wants protocol grpc")
        return _DEFAULT_HTTP if is_default else text
    if text.startswith("unix:"):
        return text
    url = split(text)
    path = destination.path or url.path
    if path not in ("", "/"):
        raise DestinationError(
            "path" if destination.path else "endpoint",
            f"{path if destination.path else text!r} is for OTLP over HTTP: set protocol to http/protobuf. "
            "gRPC wants host and port alone, usually 4317",
        )
    return text if url.port is not None else f"{text}:{_GRPC_PORT}"


class _Url:
    """The parts of an endpoint, with or without scheme."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        self.host = parts.hostname or ""
        self.port = parts.port
        self.path = parts.path


def split(endpoint: str) -> _Url:
    """Take an endpoint that isn't a socket apart."""
    return _Url(endpoint)


def request_url(destination: Destination, signal_path: str) -> tuple[str, int, str]:
    """Give host, port and path of requests by HTTP; `signal_path` is such as /v1/traces.

    It is appended to the endpoint's own path, as the specification wants for OTEL_EXPORTER_OTLP_ENDPOINT, unless
    that ends with it already.
    """
    url = split(destination.endpoint)
    port = url.port or (443 if uses_tls(destination) else 80)
    base = url.path.rstrip("/")
    path = base if base.endswith(signal_path) else base + signal_path
    return url.host, port, destination.path or path


def _headers(destination: Destination, environ: Mapping[str, str], credential: str) -> Pairs:
    """Add the headers of `headers_file`, or of the systemd credential, to those given directly, which win."""
    file = headers_source(destination, environ, credential)
    if file is None:
        return destination.headers
    place = "headers_file" if destination.headers_file else f"credential {credential}"
    try:
        pairs = read_headers(file)
    except OSError as error:
        raise DestinationError(place, f"{file} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise DestinationError(place, f"{file} {error}") from None
    return tuple((dict(pairs) | dict(destination.headers)).items())


def headers_source(destination: Destination, environ: Mapping[str, str], credential: str) -> Path | None:
    """Say which file has headers: the one configured, or the systemd credential if there is one."""
    if destination.headers_file:
        return Path(destination.headers_file)
    if credential and environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(environ["CREDENTIALS_DIRECTORY"], credential)
        return path if path.exists() else None
    return None


def read_headers(path: Path) -> Pairs:
    """Read a file of `name: value` lines; empty lines and lines that begin with # don't count.

    Raises OSError, or ValueError with a sentence that repeats no value.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_HEADERS_FILE + 1)
    if len(data) > _MAX_HEADERS_FILE:
        raise ValueError(f"is larger than {_MAX_HEADERS_FILE >> 10} KiB; no collector takes such headers")
    pairs = []
    for number, raw in enumerate(data.splitlines(), start=1):
        line = raw.decode("utf-8", "surrogateescape").strip()
        if not line or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"line {number} isn't `name: value`")
        pairs.append((name.strip(), value.strip()))
    return check_headers(tuple(pairs))


def check_files(destination: Destination) -> list[DestinationError]:
    """Say what is wrong with the certificates."""
    problems = []
    for name in ("certificate", "client_key", "client_certificate"):
        problem = unusable(getattr(destination, name))
        if problem:
            problems.append(DestinationError(name, problem))
    if bool(destination.client_key) != bool(destination.client_certificate):
        given, missing = (
            ("client_key", "client_certificate")
            if destination.client_key
            else ("client_certificate", "client_key")
        )
        problems.append(DestinationError(given, f"needs {missing} as well, for mutual TLS"))
    return problems


def unusable(name: str) -> str | None:
    """Say why a file can't be used, or nothing."""
    if not name:
        return None
    try:
        with Path(name).open("rb") as file:
            return None if file.read(1) else f"{name} is empty"
    except OSError as error:
        return f"{name} can't be read: {error.strerror}"
