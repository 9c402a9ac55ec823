"""Apache Kafka, one node that is broker and controller (KRaft)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.brokers.java import jars

_PATIENCE = 120.0

_SETTINGS = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.network.threads=2
num.io.threads=2
num.partitions=1
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""

_JAVA_OPTIONS = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
"""For a short life on few processors."""


@dataclass
class Kafka:
    """A running broker: where clients reach it, and its folder."""

    address: str
    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def port(self) -> int:
        """Of the address, which is on 127.0.0.1."""
        return int(self.address.rpartition(":")[2])


@contextmanager
def running() -> Iterator[Kafka]:
    """Run a broker that has no topics yet. Raises RuntimeError, with what it said, where it doesn't come up."""
    java = shutil.which("java")
    if java is None:
        raise RuntimeError("no java command found; run `scripts/packages test`")
    command = [java, *_JAVA_OPTIONS, "-cp", ":".join(map(str, jars("kafka")))]
    with tempfile.TemporaryDirectory(prefix="gospan-kafka-") as name:
        home = Path(name)
        port, controller = _free_ports(2)
        settings = home / "server.properties"
        settings.write_text(_SETTINGS.format(port=port, controller=controller, data=home / "data"))
        log = home / "log"
        with log.open("wb") as out:
            subprocess.run(
                [
                    *command,
                    "kafka.tools.StorageTool",
                    "format",
                    "-t",
                    "Z29zcGFuLXRlc3RzLWthZg",
                    "-c",
                    str(settings),
                ],
                stdout=out,
                stderr=out,
                check=True,
                timeout=_PATIENCE,
            )
            with subprocess.Popen(
                [*command, "kafka.Kafka", str(settings)], stdout=out, stderr=out
            ) as process:
                try:
                    _wait_for(process, port, log)
                    yield Kafka(f"127.0.0.1:{port}", home, process)
                finally:
                    process.send_signal(signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE * (10 if "GOSPAN_VM" in os.environ else 1)
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"Kafka didn't come up (exit status {process.poll()}):\n{said}")
        time.sleep(0.05)
