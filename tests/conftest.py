"""Fixtures for tests of the whole as well as of the kernel's part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import backend, found, tracing
from tests.support.golang import build
from tests.support.processes import copy_of
from tests.support.tracing import Tracing
from tests.support.tracing import tracing as tracing_by_hand

__all__ = ["backend", "found", "tracing"]


@pytest.fixture
def rig() -> Iterator[Tracing]:
    """A tracer whose loop the test is."""
    with tracing_by_hand() as made:
        yield made


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A server in a file of its own, which no agent has seen before."""
    return copy_of(build("http_server"), tmp_path / "server")
