"""Where spans go, as the configuration says it: endpoints, protocols, headers, and more destinations than one."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import (
    Compression,
    load,
    uses_tls,
)
from agent.config.destination import request_url
from agent.config.render import show
from tests.config.files import complaints, write


@pytest.mark.parametrize(
    ("given", "endpoint", "tls"),
    [
        ("http://localhost:4317", "http://localhost:4317", False),
        ("https://otel.example", "https://otel.example:4317", True),
        ("https://[::1]:1/", "https://[::1]:1", True),
        ("collector:4317", "collector:4317", True),
        ("10.0.0.1", "10.0.0.1:4317", True),
        ("unix:/run/otel.sock", "unix:/run/otel.sock", False),
        ("unix:///run/otel.sock", "unix:///run/otel.sock", False),
    ],
)
def test_endpoints(given: str, endpoint: str, tls: bool) -> None:
    config = load(flags={"export.endpoint": given})
    assert config.export.endpoint == endpoint
    assert uses_tls(config.export) is tls


def test_insecure_is_for_endpoints_without_scheme() -> None:
    assert not uses_tls(load(flags={"export.endpoint": "collector:1", "export.insecure": "true"}).export)
    assert uses_tls(load(flags={"export.endpoint": "https://collector:1", "export.insecure": "true"}).export)


@pytest.mark.parametrize(
    "given",
    [
        "http://",
        "ftp://a",
        "http://a:b",
        "http://a:99999",
        "http://u:hidden@a",
        "http://a:4318/v1/traces",
        "unix:x",
        "a b",
    ],
)
def test_wrong_endpoints(given: str) -> None:
    (only,) = complaints([], flags={"export.endpoint": given})
    assert only.startswith("command line: export.endpoint ")
    assert "hidden" not in only


def test_endpoints_by_http() -> None:
    by_http = {"export.protocol": "http/protobuf"}
    assert load(flags=by_http).export.endpoint == "http://localhost:4318"
    given = load(flags=by_http | {"export.endpoint": "https://otel.example/otlp/"}).export
    assert request_url(given, "/v1/traces") == ("otel.example", 443, "/otlp/v1/traces")
    general = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/base",
    }
    assert request_url(load(environ=general).export, "/v1/traces") == ("c", 4318, "/base/v1/traces")
    own = general | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/as/is"}
    assert request_url(load(environ=own).export, "/v1/traces") == ("c", 443, "/as/is")
    (only,) = complaints([], {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"})
    assert "'/v1/traces' is for OTLP over HTTP: set protocol to http/protobuf" in only
    (only,) = complaints([], flags=by_http | {"export.endpoint": "unix:/run/otel.sock"})
    assert "is a socket, which wants protocol grpc" in only
    (only,) = complaints([], flags=by_http | {"export.path": "v1"})
    assert only == "command line: export.path: wants a path such as /v1/traces, not 'v1'"


def test_other_destinations(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("api-key: hidden")
    text = """
[export]
endpoint = "http://first:1"
headers = { api-key = "first" }
batch_size = 7

[[export.also]]
endpoint = "https://second"
headers_file = "$CREDENTIALS_DIRECTORY/key"

[[export.also]]
endpoint = "https://third"
protocol = "http/protobuf"
compression = "gzip"
"""
    config = load([write(tmp_path / "a.toml", text)], {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    first, second, third = config.export.each()
    assert [one.endpoint for one in (first, second, third)] == [
        "http://first:1",
        "https://second:4317",
        "https://third",
    ]
    assert [dict(one.headers) for one in (first, second, third)] == [
        {"api-key": "first"},
        {"api-key": "hidden"},
        {},
    ]
    assert {one.batch_size for one in (first, second, third)} == {7}
    assert third.compression is Compression.GZIP
    shown = show(config)
    assert "hidden" not in shown
    assert 'headers = { "api-key" = "***" }' in shown


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('headers = { a = "hidden" }', ":2: export.also destination 1 has no endpoint"),
        ('endpoint = "http://a"\nport = 1', ":4: export.also destination 1 has the key 'port'"),
        ('endpoint = "http://a"\ntimeout = "x"', ":4: export.also destination 1: timeout wants a time"),
        (
            'endpoint = "http://a"\nheaders_file = "/nowhere"',
            ": destination 1: headers_file: /nowhere can't be read: No such file",
        ),
    ],
)
def test_wrong_destinations(tmp_path: Path, table: str, sentence: str) -> None:
    (only,) = complaints([write(tmp_path / "a.toml", f"\n[[export.also]]\n{table}\n")])
    assert sentence in only
    assert "hidden" not in only


def test_headers_from_file_and_credential(tmp_path: Path) -> None:
    secrets = write(tmp_path / "secrets", "# for the collector\n\nAPI-Key: one\nx-team:  core: a  \n")
    config = load(
        environ={"GOSPAN_EXPORT_HEADERS_FILE": str(secrets), "OTEL_EXPORTER_OTLP_HEADERS": "x-team=web"}
    )
    assert config.export.headers == (("api-key", "one"), ("x-team", "web"))
    assert config.place("export.headers") == f"OTEL_EXPORTER_OTLP_HEADERS, {secrets}"

    write(tmp_path / "otlp-headers", "token: two\n")
    assert load(environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}).export.headers == (("token", "two"),)
    write(tmp_path / "otlp-headers", "")
    assert load(environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}).export.headers == ()

    write(secrets, "ok: 1\nsecret-without-a-name\n")
    (only,) = complaints([], {"GOSPAN_EXPORT_HEADERS_FILE": str(secrets)})
    assert only == f"GOSPAN_EXPORT_HEADERS_FILE: export.headers_file: {secrets} line 2 isn't `name: value`"
    (only,) = complaints([], {"GOSPAN_EXPORT_HEADERS_FILE": "/nowhere"})
    assert "/nowhere can't be read: No such file or directory" in only
