"""`python -m tests.kernel.measure`: what attaching and draining cost on this machine; needs root."""

# ruff: noqa: T201 (a program for the terminal)

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from agent.kernel import tracefs
from agent.kernel.attach import Backend, attach
from agent.kernel.buffers import open_reader
from agent.kernel.errors import KernelError
from agent.kernel.features import features
from agent.kernel.maps import MapType
from agent.kernel.objects import LoadOptions, load_object
from tests.kernel import build

ROUNDS = 9


def _median(action: Callable[[], float]) -> float:
    return statistics.median(action() for _ in range(ROUNDS))


def draining(*, ring: bool, size: int) -> float:
    """Give the microseconds a record of `size` bytes takes to drain, in batches of 2000."""
    backend = features().backend()
    options = LoadOptions(
        attach_type=backend.attach_type,
        kinds={} if ring else {"events": MapType.PERF_EVENT_ARRAY},
        max_entries={"events": 1 << 22} if ring else {},
        constants={"by_ring": ring, "with_cookie": False, "filling": size - 24},
        programs=["hit"],
    )
    with load_object(build.probes(), options) as loaded, build.Target() as target:
        reader = open_reader(loaded.map("events"), perf_size=1 << 22)
        with attach(backend, loaded.program("hit").fd, build.target(), build.places()):

            def once() -> float:
                target.call(200)
                start = time.perf_counter()
                records = reader.drain()
                return (time.perf_counter() - start) / len(records) * 1e6

            result = _median(once)
        reader.close()
    return result


def attaching(backend: Backend) -> tuple[float, float]:
    """Give the milliseconds that attaching to ten places of a running program takes, and detaching."""
    options = LoadOptions(attach_type=backend.attach_type, programs=["count"])
    with load_object(build.probes(), options) as loaded, build.Target():
        closing = []

        def once() -> float:
            start = time.perf_counter()
            attachment = attach(backend, loaded.program("count").fd, build.target(), build.places())
            attached = time.perf_counter()
            attachment.close()
            closing.append(time.perf_counter() - attached)
            return attached - start

        return _median(once) * 1e3, statistics.median(closing) * 1e3


def main() -> None:
    """Print a line for each measurement."""
    start = time.perf_counter()
    found = features()
    print(f"features: {(time.perf_counter() - start) * 1e3:.0f} ms")
    start = time.perf_counter()
    load_object(build.probes(), LoadOptions(programs=["hit", "count"])).close()
    print(f"loading an object: {(time.perf_counter() - start) * 1e3:.0f} ms")
    for size in (64, 256, 1024):
        ring, perf = (draining(ring=kind, size=size) for kind in (True, False))
        print(f"draining records of {size} bytes: ring {ring:.2f} us, perf buffer {perf:.2f} us each")
    for backend in found.backends:
        attached, detached = attaching(backend)
        print(f"ten places by {backend.value}: attached in {attached:.1f} ms, detached in {detached:.1f} ms")
    try:
        tracefs.find()
    except KernelError as error:
        print(error)


if __name__ == "__main__":
    main()
