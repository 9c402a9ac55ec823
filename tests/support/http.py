"""The HTTP server and client of tests/apps: starting them, and what a span of each request has to say."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.paths import architecture
from tests.support.daemon import attributes
from tests.support.golang import NEWEST, build

# What a record has room for (bpf/net_http_server.bpf.c).
TARGET_MAX = 1024
USER_AGENT_MAX = 256

KNOWN_METHODS = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"]


@dataclass(frozen=True)
class Server:
    """A running tests/apps/http_server."""

    pid: int
    executable: Path
    ports: dict[str, int]

    def port(self, mode: str) -> int:
        """The port that a mode of the client goes to."""
        return self.ports[{"h2": "https", "h2c": "h2c"}.get(mode, "http")]


@contextmanager
def serving(
    executable: Path,
    *,
    log: Path | None = None,
    environ: dict[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[Server]:
    """Run the server until the block ends."""
    command = [str(executable), "-https", "127.0.0.1:0", "-h2c", "127.0.0.1:0", *arguments]
    if log is not None:
        command += ["-log", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    try:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        yield Server(process.pid, executable, {name: ports[name] for name in ("http", "https", "h2c")})
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def send(
    server: Server, mode: str, *arguments: str, requests: int = 300, seed: int = 1
) -> list[dict[str, Any]]:
    """Send requests and give the client's line of each."""
    command = client_command(server, mode, *arguments, requests=requests, seed=seed)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def client_command(server: Server, mode: str, *arguments: str, requests: int, seed: int = 1) -> list[str]:
    """The command that sends requests."""
    client = build("http_client", go=NEWEST, arch=architecture())
    command = [str(client), "-address", f"127.0.0.1:{server.port(mode)}", "-mode", mode]
    return [*command, "-requests", str(requests), "-seed", str(seed), *arguments]


def expects_span(line: dict[str, Any]) -> bool:
    """Whether the sampler (parentbased_always_on) wants a span: the parent decides, where there is one."""
    return not line["parent_trace_id"] or line["parent_sampled"]


def recorded_text(latin1: str, limit: int) -> str:
    """A text as a span has it: cut to what a record holds, and what is not UTF-8 replaced."""
    return latin1.encode("latin-1")[:limit].decode("utf-8", "replace")


def expected(line: dict[str, Any], route: str) -> dict[str, Any]:
    """The attributes that a request's span has to have, from the client's line and the pattern the server found."""
    target = line["target"].encode("latin-1")[:TARGET_MAX].decode("latin-1")
    found = re.match(r"(?:http://[^/?]*)?([^?]*)(?:\?(.*))?", target, re.DOTALL)
    assert found is not None
    method, status = line["method"], line["status"]
    host, _, port = line["host"].partition(":")
    scheme = "https" if line["mode"] == "h2" else "http"
    peer, _, peer_port = line["local"].rpartition(":")
    wanted: dict[str, Any] = {
        "http.request.method": method if method in KNOWN_METHODS else "_OTHER",
        "url.scheme": scheme,
        "url.path": recorded_text(found[1], TARGET_MAX),
        "server.address": recorded_text(host, 128),
        "server.port": int(port) if port else {"http": 80, "https": 443}[scheme],
        "client.address": peer,
        "network.peer.address": peer,
        "network.peer.port": int(peer_port),
        "network.protocol.version": line["protocol"],
    }
    if method not in KNOWN_METHODS:
        wanted["http.request.method_original"] = method
    if found[2]:
        wanted["url.query"] = recorded_text(found[2], TARGET_MAX)
    if line["user_agent"] is not None:
        wanted["user_agent.original"] = recorded_text(line["user_agent"], USER_AGENT_MAX)
    if route:
        wanted["http.route"] = route
    if line["fault"]:
        return wanted
    wanted["http.response.status_code"] = status
    if status >= 500:
        wanted["error.type"] = str(status)
    return wanted


def check(line: dict[str, Any], span: Span, route: str) -> None:
    """Compare a span with everything that is known of its request."""
    wanted, has = expected(line, route), attributes(span)
    if line["fault"]:
        check_fault(line, span, has)
        has = {
            name: value
            for name, value in has.items()
            if name not in ("http.response.status_code", "error.type")
        }
    assert has == wanted, (line, has)
    method = wanted["http.request.method"]
    assert span.name == " ".join(filter(None, ("HTTP" if method == "_OTHER" else method, route)))
    assert span.kind == Span.SPAN_KIND_SERVER
    # The client's clock is the server's, but the client may be late to look at it.
    assert line["start_ns"] - 1_000_000 <= span.start_time_unix_nano <= span.end_time_unix_nano
    assert span.end_time_unix_nano <= line["end_ns"] + 1_000_000_000
    if line["parent_trace_id"]:
        assert span.trace_id.hex() == line["parent_trace_id"], line
        assert span.parent_span_id.hex() == line["parent_span_id"]
        assert span.trace_state == line["tracestate"]
        assert span.flags == 0x301
    else:
        assert span.parent_span_id == b""
        assert span.trace_state == ""
        assert span.flags == 0x101
    assert len(span.trace_id) == 16
    assert any(span.trace_id)
    assert len(span.span_id) == 8
    assert any(span.span_id)
    failed = "error.type" in attributes(span)
    assert span.status.code == (Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET)


def check_fault(line: dict[str, Any], span: Span, has: dict[str, Any]) -> None:
    """A handler that panicked, or left its goroutine, or took the connection over."""
    if "hijack" in line["target"] and line["protocol"] != "2":
        assert "error.type" not in has
        assert "http.response.status_code" not in has
    elif "hijack" in line["target"]:
        assert has["http.response.status_code"] in (500, 501)
    else:
        assert has["error.type"] == "panic"
        assert span.status.code == Status.STATUS_CODE_ERROR
