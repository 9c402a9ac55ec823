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


@pytest.mark.parametrize("sampler", ["always_off", "traceidratio"])
def test_what_one_service_does_not_sample_the_next_one_does_not_either(sampler: str) -> None:
    """The flag travels on, although the service has no span."""
    own = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0"}
    with serving(environ={"middle": own}) as services, running("propagation.connections=yes") as daemon:
        eventually(lambda: daemon.traces(str(services.executable)), "the services are traced")
        _, said = services.load(clients=4, requests=40)
        assert said["failed"] == 0
        front = services.pids["front"]
        eventually(lambda: len(daemon.spans_of(front)) >= 80, "the spans of the first service")
        last = daemon.stop()
        assert last["dropped"] == {}
        found = {role: len(daemon.spans_of(pid)) for role, pid in services.pids.items()}
        assert found == {"front": 80, "middle": 0, "back": 0}
