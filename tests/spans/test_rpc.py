"""What the RPC conventions say, case by case."""

from __future__ import annotations

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.config import RpcNames
from agent.spans.rpc import (
    CODE_UNKNOWN,
    Endpoint,
    address_of,
    code_name,
    describe_call,
    parse_target,
    use_names,
)
from tests.support.daemon import attributes


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("example.com:443", "example.com", 443),
        ("example.com", "example.com", None),
        ("dns:///example.com:443", "example.com", 443),
        ("dns://8.8.8.8/example.com:443", "example.com", 443),
        ("dns:example.com:443", "example.com", 443),
        ("passthrough:///bufnet", "bufnet", None),
        ("xds:///service.example:8080", "service.example", 8080),
        ("[::1]:50051", "::1", 50051),
        ("dns:///[2001:db8::1]:50051", "2001:db8::1", 50051),
        ("2001:db8::1", "2001:db8::1", None),
        ("ipv4:10.0.0.1:80,10.0.0.2:80", "10.0.0.1", 80),
        ("unix:///run/app.sock", "/run/app.sock", None),
        ("unix:run/app.sock", "run/app.sock", None),
        ("unix-abstract:app", "app", None),
        ("host:port", "host:port", None),
        ("", "", None),
    ],
)
def test_targets(target: str, host: str, port: int | None) -> None:
    assert parse_target(target) == Endpoint(host, port)


def test_codes() -> None:
    assert [code_name(code) for code in (0, 1, 4, 16)] == [
        "OK",
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "UNAUTHENTICATED",
    ]
    assert code_name(99) == "99"


def test_addresses() -> None:
    assert address_of(bytes([127, 0, 0, 1])) == "127.0.0.1"
    assert address_of(bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])) == "10.0.0.1"
    assert address_of(bytes(15) + b"\x01") == "::1"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            RpcNames.CURRENT,
            {"rpc.system.name": "grpc", "rpc.method": "a.B/C", "rpc.response.status_code": "NOT_FOUND"},
        ),
        (
            RpcNames.OLD,
            {"rpc.system": "grpc", "rpc.service": "a.B", "rpc.method": "C", "rpc.grpc.status_code": 5},
        ),
        (
            RpcNames.BOTH,
            {
                "rpc.system.name": "grpc",
                "rpc.method": "a.B/C",
                "rpc.response.status_code": "NOT_FOUND",
                "rpc.system": "grpc",
                "rpc.service": "a.B",
                "rpc.grpc.status_code": 5,
            },
        ),
    ],
)
def test_names(names: RpcNames, told: dict[str, object]) -> None:
    span = Span()
    use_names(names)
    try:
        describe_call(span, "a.B/C", 5)
    finally:
        use_names(RpcNames.CURRENT)
    assert span.name == "a.B/C"
    assert attributes(span) == told


def test_a_status_that_is_not_known_is_not_told() -> None:
    span = Span()
    describe_call(span, "a.B/C", CODE_UNKNOWN)
    assert "rpc.response.status_code" not in attributes(span)
