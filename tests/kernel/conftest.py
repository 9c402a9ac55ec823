from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel import tracefs
from agent.kernel.attach import Backend
from agent.kernel.errors import KernelError
from agent.kernel.features import Features, features
from tests.kernel import build


@pytest.fixture(scope="session")
def probes() -> str:
    return build.probes()


@pytest.fixture
def target() -> Iterator[build.Target]:
    with build.Target() as running:
        yield running


@pytest.fixture(scope="session")
def tracing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tracefs.Tracefs]:
    """Tracefs where it is mounted, or mounted for as long as the tests run."""
    try:
        yield tracefs.find()
    except KernelError:
        path = tmp_path_factory.mktemp("tracing")
        subprocess.run(["mount", "-t", "tracefs", "tracefs", str(path)], check=True)
        yield tracefs.Tracefs(Path(path))
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture(scope="session")
def found(tracing: tracefs.Tracefs) -> Features:  # noqa: ARG001 (has to be mounted before)
    features.cache_clear()  # somebody may have asked before it was
    return features()


@pytest.fixture(params=list(Backend), ids=lambda one: str(one.value))
def backend(request: pytest.FixtureRequest, found: Features) -> Backend:
    """Each back-end; on kernels without uprobe_multi, perf stands in for it."""
    chosen: Backend = request.param
    return Backend.PERF if chosen is Backend.UPROBE_MULTI and not found.uprobe_multi else chosen
