"""What the RPC conventions say of statuses, methods and targets (OpenTelemetry, "gRPC", release candidate).

The names are those of gRPC's status codes (google.golang.org/grpc/codes).
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import unquote

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.config import RpcNames
from agent.spans.template import set_attribute

CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""By number, 0 to 16."""

SERVER_ERRORS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses that are an error of the server's; to the client every one but OK is."""

CODE_UNKNOWN = 0xFFFFFFFF
"""Of a record: no status could be read (bpf/grpc.h)."""

METHOD_OTHER = "_OTHER"
"""rpc.method of a call of what the server doesn't have: whoever calls can make such names up without end."""


class Endpoint(NamedTuple):
    """A host name or address, and a port; None where there is none."""

    host: str
    port: int | None


class _Names:
    """Which names spans get; use_names sets it."""

    chosen = RpcNames.CURRENT


def use_names(names: RpcNames) -> None:
    """Name the attributes of calls so from now on."""
    _Names.chosen = names


def code_name(code: int) -> str:
    """The name of a status code; a code that has none is called by its number."""
    return CODES[code] if code < len(CODES) else str(code)


def parse_target(target: str) -> Endpoint:
    """The server that a client was told to connect to (gRPC naming: `[scheme:[//authority]/]endpoint`).

    A Unix socket's path is a host without a port.
    """
    endpoint = target
    scheme, colon, rest = target.partition(":")
    if colon and rest.startswith("//"):
        _, _, endpoint = rest[2:].partition("/")
        if scheme == "unix":
            return Endpoint("/" + endpoint, None)
    elif colon and scheme in ("dns", "passthrough", "ipv4", "ipv6", "xds"):
        endpoint = rest
    elif scheme in ("unix", "unix-abstract") and colon:
        return Endpoint(rest, None)
    endpoint = unquote(endpoint.partition(",")[0])
    host, colon, port = endpoint.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or (":" in host and not host.startswith("[")):
        return Endpoint(endpoint.removeprefix("[").removesuffix("]"), None)
    return Endpoint(host.removeprefix("[").removesuffix("]"), int(port))


def address_of(raw: bytes) -> str:
    """An IP address of 4 or 16 bytes as text; IPv4 addresses that are mapped into IPv6 as IPv4."""
    address = ip_address(raw)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def describe_call(span: Span, method: str, code: int) -> None:
    """Name a span, and give it the attributes that calls have on both sides; `method` is `package.Service/Method`."""
    names = _Names.chosen
    span.name = method if method != METHOD_OTHER else "grpc"
    if names is not RpcNames.OLD:
        set_attribute(span, "rpc.system.name", "grpc")
        set_attribute(span, "rpc.method", method)
        if code != CODE_UNKNOWN:
            set_attribute(span, "rpc.response.status_code", code_name(code))
    if names is not RpcNames.CURRENT:
        service, _, own = method.rpartition("/")
        set_attribute(span, "rpc.system", "grpc")
        if service:
            set_attribute(span, "rpc.service", service)
        if names is RpcNames.OLD:
            set_attribute(span, "rpc.method", own)
        if code != CODE_UNKNOWN:
            set_attribute(span, "rpc.grpc.status_code", code)
