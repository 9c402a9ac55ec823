from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.commands.collector import of_collector
from agent.commands.findings import Level
from agent.config import Config, load


def asked(timeout: float = 2.0, **settings: str) -> tuple[Level, str]:
    config: Config = load(flags={f"export.{name}": value for name, value in settings.items()})
    [finding] = of_collector(config.export, timeout=timeout)
    return finding.level, finding.sentence


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


def test_no_collector_wanted() -> None:
    assert asked(sink="console") == (Level.OK, "Spans go to standard output, as configured.")
    assert asked(sink="none") == (Level.OK, "Spans go nowhere, as configured.")


def test_collector_that_answers(listener: socket.socket, tmp_path: Path) -> None:
    port = listener.getsockname()[1]
    text = f"http://127.0.0.1:{port} answers, without TLS."
    assert asked(endpoint=f"http://127.0.0.1:{port}") == (Level.OK, text)
    assert asked(endpoint=f"localhost:{port}", insecure="true")[0] is Level.OK
    with socket.socket(socket.AF_UNIX) as local:
        local.bind(f"{tmp_path}/collector.sock")
        local.listen()
        assert asked(endpoint=f"unix:{tmp_path}/collector.sock")[0] is Level.OK


def test_every_collector_is_asked(listener: socket.socket, tmp_path: Path) -> None:
    """The port of one that is spoken to by HTTP is that of its scheme; there is none at 127.0.0.9."""
    port = listener.getsockname()[1]
    file = tmp_path / "config.toml"
    file.write_text(
        f"[export]\nendpoint = 'http://127.0.0.1:{port}'\n"
        "[[export.also]]\nendpoint = 'http://127.0.0.9/otlp'\nprotocol = 'http/protobuf'\n"
    )
    first, second = of_collector(load([file]).export)
    assert (first.level, second.level) == (Level.OK, Level.WARNING)
    assert "http://127.0.0.9/otlp at the moment: connection refused" in second.sentence


def test_collector_that_does_not(listener: socket.socket, tmp_path: Path) -> None:
    port = listener.getsockname()[1]
    listener.close()
    level, text = asked(endpoint=f"http://127.0.0.1:{port}")
    assert level is Level.WARNING
    assert text == (
        f"Nothing can be sent to http://127.0.0.1:{port} at the moment: connection refused. "
        "Spans would wait, then be dropped."
    )
    assert "no such file or directory" in asked(endpoint=f"unix:{tmp_path}/none")[1]
    level, text = asked(endpoint="http://collector.invalid")
    assert level is Level.WARNING
    assert "looking up collector.invalid" in text


def test_collector_that_keeps_silent(listener: socket.socket) -> None:
    """Its backlog takes the connection, and nobody answers the handshake."""
    before = time.monotonic()
    level, text = asked(0.2, endpoint=f"https://127.0.0.1:{listener.getsockname()[1]}")
    assert (level, time.monotonic() - before < 1.5) == (Level.WARNING, True)
    assert "connecting takes longer than 0.2 s" in text


def test_certificates(listener: socket.socket, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=collector", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    endpoint = f"https://127.0.0.1:{listener.getsockname()[1]}"
    level, text = asked(endpoint=endpoint)
    assert level is Level.WARNING
    assert "its certificate isn't trusted, self-signed certificate" in text.replace(
        "self signed", "self-signed"
    )
    assert asked(endpoint=endpoint, certificate=str(certificate)) == (
        Level.OK,
        f"{endpoint} answers, with TLS.",
    )
    thread.join()


def test_tls_to_a_port_without(listener: socket.socket) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.recv(4096)

    thread = threading.Thread(target=serve)
    thread.start()
    level, text = asked(endpoint=f"https://127.0.0.1:{listener.getsockname()[1]}")
    thread.join()
    assert level is Level.WARNING
    assert "the TLS handshake failed" in text
    assert "is it a port without TLS?" in text
