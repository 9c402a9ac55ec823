"""Requests through three services give one trace each, with the right tree: gin, net/http, HTTP/2 in a row.

Where the kernel lets nothing be written into programs they are tied together by their connections;
tests/vm/injection.py has the same with writing.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon, eventually, running
from tests.support.services import Services, check_load, serving

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def system() -> Iterator[tuple[Daemon, Services]]:
    with serving() as services, running("propagation.connections=yes") as daemon:
        eventually(lambda: daemon.traces(str(services.executable)), "the services are traced")
        yield daemon, services


@pytest.mark.parametrize(("clients", "requests"), [(1, 100), (64, 500), (512, 1000)])
def test_a_request_gives_one_trace(system: tuple[Daemon, Services], clients: int, requests: int) -> None:
    check_load(*system, clients=clients, requests=requests)
