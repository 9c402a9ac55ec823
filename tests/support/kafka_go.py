"""The program of tests/apps/kafka_go: building it with a release of kafka-go, running it, and telling it what to do."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.golang import ARCH, NEWEST, build
from tests.support.modules import with_versions

RELEASES = {
    "0.4.1": "1.19.13",
    "0.4.10": "1.24.13",
    "0.4.11": "1.24.13",
    "0.4.38": "1.24.13",
    "0.4.39": "1.24.13",
    "0.4.41": "1.24.13",
    "0.4.51": NEWEST,
}
"""The oldest release, the newest, and those on both sides of where a field moved; each with a Go release."""

NEWEST_KAFKA_GO = "0.4.51"


def program(release: str = NEWEST_KAFKA_GO, *, arch: str = ARCH) -> Path:
    """The program, stripped, with a release of kafka-go."""
    go = RELEASES[release]
    source = with_versions("kafka_go", {"github.com/segmentio/kafka-go": release}, go=go)
    return build(source, go=go, arch=arch)


@dataclass
class App:
    """The running program."""

    process: subprocess.Popen[str]
    port: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def do(self, op: str, **arguments: object) -> dict[str, Any]:
        """Have it do something, and give its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.lock:
            self.process.stdin.write(json.dumps({"op": op} | arguments) + "\n")
            self.process.stdin.flush()
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
            return answer

    def topic(self, name: str, partitions: int = 1) -> str:
        """Make a topic; gives its name."""
        answer = self.do("topic", topic=name, partitions=partitions)
        assert not answer["error"], answer
        return name

    def offsets(self, topic: str) -> list[int]:
        """How many messages the broker has had, by partition."""
        answer = self.do("offsets", topic=topic)
        assert not answer["error"], answer
        offsets: list[int] = answer["offsets"]
        return offsets

    def get(
        self, paths: Sequence[str], *, connections: int = 1, headers: Mapping[str, str] = MappingProxyType({})
    ) -> list[tuple[int, str]]:
        """Ask its HTTP server for pages, over connections that are kept alive; gives statuses and bodies."""
        answers: list[tuple[int, str]] = []
        waiting = list(reversed(paths))

        def ask() -> None:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
            while waiting:
                try:
                    path = waiting.pop()
                except IndexError:
                    break
                connection.request("GET", path, headers=dict(headers))
                answer = connection.getresponse()
                answers.append((answer.status, answer.read().decode()))
            connection.close()

        threads = [threading.Thread(target=ask) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == len(paths)
        return answers


@contextmanager
def running_app(
    path: Path, broker: str, *, environ: Mapping[str, str] = MappingProxyType({})
) -> Iterator[App]:
    """Run the program until the block ends; `environ` is added to ours."""
    with subprocess.Popen(
        [path, broker],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    ) as process:
        assert process.stdout is not None
        try:
            yield App(process, json.loads(process.stdout.readline())["http"])
        finally:
            process.kill()
