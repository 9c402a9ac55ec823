"""The agent as its users run it: a process of its own, started by the command, sending to a collector of the test's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from typing import IO, Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.spans.collector import Collector, serving

# An emulated processor (tests/vm) takes ten times as long, and more when it shares the real one.
TIMEOUT = 300.0 if "GOSPAN_VM" in os.environ else 60.0


def eventually(condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


@dataclass
class Daemon:
    """A running agent: its collector, and its messages as they come."""

    process: subprocess.Popen[str]
    collector: Collector
    messages: list[dict[str, Any]] = field(default_factory=list)

    def said(self, text: str) -> bool:
        """Whether a message contains this."""
        return any(text in message.get("message", "") for message in self.messages)

    def traces(self, path: str) -> bool:
        """Whether it said that it traces this executable."""
        return any(
            message.get("exe") == path and "tracing" in message.get("message", "")
            for message in self.messages
        )

    def spans(self) -> list[tuple[dict[str, Any], Span]]:
        """Every span that arrived, with the attributes of its resource."""
        with self.collector.lock:
            requests = list(self.collector.requests)
        return [
            (attributes(resource.resource), span)
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def spans_of(self, pid: int) -> list[Span]:
        """The spans of one process: others may run on this machine."""
        return [span for resource, span in self.spans() if resource["process.pid"] == pid]

    def stop(self) -> dict[str, Any]:
        """End it as systemd does; give its last message."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(TIMEOUT) == 0, self.messages
        eventually(lambda: self.said("gospan stops"), "the last message")
        return self.messages[-1]


def attributes(of: Resource | Span | NumberDataPoint | HistogramDataPoint) -> dict[str, Any]:
    """The attributes of a resource, a span or a point; each name once."""
    values = {one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in of.attributes}
    assert len(values) == len(of.attributes)
    return values


@contextmanager
def running(
    *settings: str,
    ready: bool = True,
    collecting: bool = True,
    environ: dict[str, str] | None = None,
    config: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    socket: Path | None = None,
) -> Iterator[Daemon]:
    """Run the agent with settings such as `kernel.buffer=perf`; it is killed if the test didn't stop it.

    Without `collecting` the collector has a port, but doesn't run. In a `config`, a file, PORT becomes its port.
    """
    collector = Collector()
    with serving(collector) if collecting else _port_for(collector):
        command = [sys.executable, "-m", "agent", "run", "--log-format", "json"]
        if config is None:
            command += ["--config", "/dev/null", "--endpoint", f"http://127.0.0.1:{collector.port}"]
            # The tests' clients are traced as well, and requests that they send no context with are to have no parent.
            for one in ("http1", "http2", "connections"):
                command += ["--set", f"propagation.{one}=no"]
        else:
            config.write_text(config.read_text().replace("PORT", str(collector.port)))
            command += ["--config", str(config)]
        # Several agents run here at the same time, and the status socket is for one.
        for setting in ("export.schedule_delay=100ms", f"status.socket={socket or ''}", *settings):
            command += ["--set", setting]
        process = subprocess.Popen(command, stdin=stdin, stderr=subprocess.PIPE, text=True, env=environ)
        daemon = Daemon(process, collector)
        assert process.stderr is not None
        reader = threading.Thread(target=_read, args=(process.stderr, daemon.messages), daemon=True)
        reader.start()
        try:
            if ready:
                eventually(
                    lambda: daemon.said("gospan is tracing") or process.poll() is not None,
                    "the agent's start",
                )
                assert process.poll() is None, daemon.messages
            yield daemon
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            reader.join(TIMEOUT)
            process.stderr.close()


@contextmanager
def _port_for(collector: Collector) -> Iterator[Collector]:
    with create_server(("127.0.0.1", 0)) as reserved:
        collector.port = reserved.getsockname()[1]
    yield collector


def _read(stream: IO[str], messages: list[dict[str, Any]]) -> None:
    for line in stream:
        try:
            messages.append(json.loads(line))
        except ValueError:
            messages.append({"message": line})
