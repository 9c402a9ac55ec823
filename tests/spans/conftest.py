"""A collector by gRPC, and exporters to it that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from agent.config import Export
from agent.log import StateLog
from agent.spans.export import Exporter
from agent.spans.transport import GrpcTransport
from tests.spans.collector import Collector, serving
from tests.spans.exporting import FAST, Recorder


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def start(recorder: Recorder) -> Iterator[Callable[[Export], Exporter]]:
    started: list[Exporter] = []

    def make(settings: Export) -> Exporter:
        started.append(Exporter(settings, GrpcTransport, log=StateLog(recorder), backoff=FAST))
        return started[-1]

    yield make
    for exporter in started:
        exporter.shutdown(0)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with serving(Collector()) as running:
        yield running
