"""A collector by gRPC, and exporters to it that end with their test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.spans.transport import GrpcTransport
from tests.spans.collector import Collector, serving
from tests.spans.exporting import Recorder, Start, starting


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def start(recorder: Recorder) -> Iterator[Start]:
    with starting(recorder, GrpcTransport) as make:
        yield make


@pytest.fixture
def collector() -> Iterator[Collector]:
    with serving(Collector()) as running:
        yield running
