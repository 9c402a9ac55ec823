"""The exporter against gRPC servers by TLS: authorities, certificates, and what happens while they are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from tests.spans.collector import Authority, Collector, make_authority, serving
from tests.spans.exporting import SETTINGS, Start, origin, spans, wait_until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def server_credentials(authority: Authority, *, client_required: bool) -> grpc.ServerCredentials:
    key, certificate = authority.issue("server")
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=authority.certificate.read_bytes() if client_required else None,
        require_client_auth=client_required,
    )


def test_tls_with_a_private_authority(start: Start, authority: Authority) -> None:
    with serving(Collector(), credentials=server_credentials(authority, client_required=False)) as collector:
        for endpoint in (f"https://localhost:{collector.port}", f"localhost:{collector.port}"):
            exporter = start(replace(SETTINGS, endpoint=endpoint, certificate=str(authority.certificate)))
            exporter.put(origin(), spans(range(5)))
            assert exporter.flush(10)
        assert collector.numbers == [*range(5), *range(5)]


def test_tls_with_an_authority_we_dont_trust(start: Start, authority: Authority, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other")
    with serving(Collector(), credentials=server_credentials(authority, client_required=False)) as collector:
        for certificate in (str(other.certificate), ""):
            endpoint = f"https://localhost:{collector.port}"
            exporter = start(replace(SETTINGS, endpoint=endpoint, certificate=certificate))
            exporter.put(origin(), spans(range(5)))
            wait_until(lambda exporter=exporter: exporter.status().retries > 0)  # type: ignore[misc]
            assert "UNAVAILABLE" in str(exporter.status().last_error)
            assert exporter.status().held == 5
        assert collector.calls == 0


def test_mutual_tls(start: Start, authority: Authority) -> None:
    key, certificate = authority.issue("agent")
    with serving(Collector(), credentials=server_credentials(authority, client_required=True)) as collector:
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


def test_certificates_are_read_again_after_a_failure(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(make_authority(tmp_path / "old").certificate.read_bytes())
    with serving(Collector(), credentials=server_credentials(authority, client_required=False)) as collector:
        exporter = start(
            replace(SETTINGS, endpoint=f"https://localhost:{collector.port}", certificate=str(trusted))
        )
        exporter.put(origin(), spans(range(5)))
        wait_until(lambda: exporter.status().retries > 0)
        trusted.write_bytes(authority.certificate.read_bytes())
        assert exporter.flush(10)
        assert collector.numbers == list(range(5))


def test_certificate_that_appears_later(start: Start, authority: Authority, tmp_path: Path) -> None:
    missing = tmp_path / "later.pem"
    with serving(Collector(), credentials=server_credentials(authority, client_required=False)) as collector:
        exporter = start(
            replace(SETTINGS, endpoint=f"https://localhost:{collector.port}", certificate=str(missing))
        )
        exporter.put(origin(), spans(range(5)))
        wait_until(lambda: exporter.status().last_error is not None)
        assert "later.pem" in str(exporter.status().last_error)
        missing.write_bytes(authority.certificate.read_bytes())
        assert exporter.flush(10)
        assert collector.numbers == list(range(5))
