"""A real OpenTelemetry Collector (tests/apps/collector): what it is given it passes on, to collectors of the test's."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.config import Protocol
from tests.spans.collector import Authority
from tests.support.golang import build

PLAIN = "plain"


@dataclass
class RealCollector:
    """A Collector that can be ended and started again: the same ports, the same configuration.

    `ports` are by protocol and kind of receiver. It keeps nothing: a request is answered when it was passed on, so that
    none is lost in it when it is killed.
    """

    directory: Path
    ports: dict[tuple[Protocol, str], int]
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start it, and wait until it takes requests."""
        log = self.directory / f"log-{len(self._processes)}"
        command = [str(build("collector")), "--config", f"file:{self.directory}/config.yaml"]
        with log.open("w") as output:
            self._processes.append(subprocess.Popen(command, stderr=output))
        deadline = time.monotonic() + 60
        while "Everything is ready" not in (text := log.read_text()):
            assert self._processes[-1].poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.05)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._processes[-1].kill()
        self._processes[-1].wait()

    def stop(self) -> None:
        """End it in order, if it runs."""
        if self._processes and self._processes[-1].poll() is None:
            self._processes[-1].terminate()
            self._processes[-1].wait(20)


@contextmanager
def running(
    directory: Path, beyond: Mapping[str, int], authority: Authority | None = None
) -> Iterator[RealCollector]:
    """Run a Collector that passes each signal on to a port (`beyond`).

    It has receivers by gRPC and HTTP: plain ones, and with an authority those by TLS and by mutual TLS.
    """
    kinds: dict[str, dict[str, object]] = {PLAIN: {}}
    if authority is not None:
        key, certificate = authority.issue("server")
        tls = {"cert_file": str(certificate), "key_file": str(key)}
        kinds["tls"] = {"tls": tls}
        kinds["mutual"] = {"tls": tls | {"client_ca_file": str(authority.certificate)}}
    numbers = iter(_free_ports(len(kinds) * len(Protocol)))
    ports = {(protocol, kind): next(numbers) for kind in kinds for protocol in Protocol}
    receivers = {
        f"otlp/{kind}": {
            "protocols": {
                protocol.value.partition("/")[0]: {"endpoint": f"127.0.0.1:{ports[protocol, kind]}"}
                | settings
                for protocol in Protocol
            }
        }
        for kind, settings in kinds.items()
    }
    exporters = {
        f"otlp_grpc/{signal}": {
            "endpoint": f"127.0.0.1:{port}",
            "tls": {"insecure": True},
            "sending_queue": {"enabled": False},
        }
        for signal, port in beyond.items()
    }
    pipelines = {
        signal: {"receivers": list(receivers), "exporters": [f"otlp_grpc/{signal}"]} for signal in beyond
    }
    settings = {"receivers": receivers, "exporters": exporters, "service": {"pipelines": pipelines}}
    # JSON is YAML.
    (directory / "config.yaml").write_text(json.dumps(settings))
    collector = RealCollector(directory, ports)
    try:
        collector.start()
        yield collector
    finally:
        collector.stop()


def _free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on: the Collector doesn't tell which ones it was given."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
