"""Programs that use the libraries which gospan traces, each asked once for what makes spans.

Runs inside the Debian that the package is tried in, of the standard library and what the agent itself uses.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.package import refusing
from tests.support import calls, grpc, kafka_go, sql

ROUTES = {
    "/gin/users/7": "/gin/users/:id",
    "/mux/users/7": "/mux/users/{id}",
    "/chi/api/users/7": "/chi/api/users/{id}",
    "/echo5/v1/users/7": "/echo5/v1/users/:id",
    "/servemux/users/7": "/servemux/users/{id}",
}
"""What tests/apps/routers is asked for, and the route that the span has then: each by another router."""

SCOPES = {
    "http_calls": ("net_http_server", "net_http_client"),
    "routers": ("net_http_server",),
    "grpc": ("grpc_server", "grpc_client"),
    "databases": ("net_http_server", "database_sql", "pgx"),
    "kafka_go": ("kafka_go_producer",),
}
"""The programs of tests/apps, and the instrumentation scopes, less their prefix, that the spans of each have."""

ATTACHED = {"kafka_go": ("kafka-go consumer",)}
"""Libraries whose spans need what isn't there, a broker: attached to is all that can be seen of them."""


class Everything:
    """The running programs."""

    def __init__(self, programs: Mapping[str, Path], stack: ExitStack) -> None:
        self._programs = programs
        self._calls = stack.enter_context(calls.calling(programs["http_calls"]))
        self._routers = stack.enter_context(_routers(programs["routers"]))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self._grpc = stack.enter_context(grpc.serving(programs["grpc"], log=scratch / "calls"))
        databases = {
            "sqlite": "file::memory:?cache=shared",
            "pgxpool": f"postgres://app@127.0.0.1:{stack.enter_context(refusing.postgresql())}/shop?sslmode=disable",
        }
        self._databases = stack.enter_context(sql.asking(programs["databases"], databases))
        # Nobody listens there.
        self._kafka = stack.enter_context(kafka_go.running_app(programs["kafka_go"], "127.0.0.1:9"))

    def ask(self) -> None:
        """Have each library do once what it makes spans of."""
        self._calls.ask("/handler", 1)
        for path in ROUTES:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._routers}{path}", timeout=30) as answer:
                answer.read()
        grpc.call(self._programs["grpc"], self._grpc.address, [{"method": "Unary", "id": "once"}])
        self._databases.ask("setup", "sqlite")
        self._databases.ask("native-exec", "pgxpool")
        self._kafka.do("produce", topic="orders", messages=[{"value": "one"}])


@contextmanager
def running(programs: Mapping[str, Path]) -> Iterator[Everything]:
    """Run them all, until the block ends; `programs` are by their names in tests/apps."""
    with ExitStack() as stack:
        yield Everything(programs, stack)


@contextmanager
def _routers(program: Path) -> Iterator[int]:
    """The port of tests/apps/routers."""
    with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["http"]
        finally:
            process.kill()
