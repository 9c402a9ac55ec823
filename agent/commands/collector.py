"""Whether the collector answers, asked without sending anything: a name looked up, a connection, a TLS handshake.

What fails now may work in a minute, so all of it is a warning at most.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

from agent.commands.findings import COLLECTOR, Finding, Level
from agent.config import Destination, Export, Protocol, Sink, uses_tls
from agent.config.destination import request_url

TIMEOUT = 2.0
"""Seconds that one step may take: looking up the name, connecting with the handshake."""

_Address = tuple[int, str, int]


class _UnreachableError(Exception):
    """The collector doesn't answer; the message completes "http://…: "."""


def of_collector(export: Export, *, timeout: float = TIMEOUT) -> Iterator[Finding]:
    """Say where spans will go, and whether somebody answers there."""
    if export.sink is not Sink.OTLP:
        where = "to standard output" if export.sink is Sink.CONSOLE else "nowhere"
        yield Finding(COLLECTOR, "sink", Level.OK, f"Spans go {where}, as configured.")
        return
    for destination in export.each():
        yield _of_destination(destination, timeout)


def _of_destination(destination: Destination, timeout: float) -> Finding:
    endpoint = destination.endpoint
    how = "with TLS" if uses_tls(destination) else "without TLS"
    try:
        if endpoint.startswith("unix:"):
            _connect_unix(endpoint, timeout)
        else:
            _connect(destination, timeout)
    except _UnreachableError as error:
        text = f"Nothing can be sent to {endpoint} at the moment: {error}. Spans would wait, then be dropped."
        return Finding(COLLECTOR, "endpoint", Level.WARNING, text)
    return Finding(COLLECTOR, "endpoint", Level.OK, f"{endpoint} answers, {how}.")


def _connect_unix(endpoint: str, timeout: float) -> None:
    path = endpoint.removeprefix("unix:").removeprefix("//")
    with socket.socket(socket.AF_UNIX) as connection, _explained("connecting", timeout):
        connection.settimeout(timeout)
        connection.connect(path)


def _connect(export: Destination, timeout: float) -> None:
    host, port, _ = request_url(export, "")
    with _explained(f"looking up {host}", timeout):
        addresses = _within(timeout, lambda: _look_up(host, port))
    problem = _UnreachableError(f"{host} has no address")
    for family, address, _ in addresses[:4]:
        try:
            with _explained("connecting", timeout), socket.socket(family) as connection:
                connection.settimeout(timeout)
                connection.connect((address, port))
                if uses_tls(export):
                    with _context(export).wrap_socket(connection, server_hostname=host):
                        pass
        except _UnreachableError as error:
            problem = error
        else:
            return
    raise problem


def _look_up(host: str, port: int) -> list[_Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(int(family), str(address[0]), port) for family, _, _, _, address in found]


def _context(export: Destination) -> ssl.SSLContext:
    """Trust and show what the exporter will."""
    context = ssl.create_default_context(cafile=export.certificate or None)
    context.set_alpn_protocols(["h2" if export.protocol is Protocol.GRPC else "http/1.1"])
    if export.client_certificate:
        context.load_cert_chain(export.client_certificate, export.client_key)
    return context


@contextlib.contextmanager
def _explained(step: str, timeout: float) -> Iterator[None]:
    """Turn what can go wrong with a connection into words."""
    try:
        yield
    except TimeoutError:
        raise _UnreachableError(f"{step} takes longer than {timeout:g} s") from None
    except socket.gaierror as error:
        raise _UnreachableError(f"{step} failed, {error.strerror}") from None
    except ssl.SSLCertVerificationError as error:
        raise _UnreachableError(f"its certificate isn't trusted, {error.verify_message}") from None
    except ssl.SSLError as error:
        raise _UnreachableError(
            f"the TLS handshake failed, {error.reason or error}; is it a port without TLS?"
        ) from None
    except OSError as error:
        raise _UnreachableError((error.strerror or str(error)).lower()) from None


def _within(timeout: float, action: Callable[[], list[_Address]]) -> list[_Address]:
    """Do something that has no time limit of its own, in a thread that is left behind if it takes longer."""
    result: list[list[_Address]] = []
    errors: list[OSError] = []

    def work() -> None:
        try:
            result.append(action())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout)
    if errors:
        raise errors[0]
    if not result:
        raise TimeoutError
    return result[0]
