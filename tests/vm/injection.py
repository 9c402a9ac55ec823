"""Writing trace context into requests, on a guest's kernel; run there as `python -m tests.vm.injection`.

The kernel of the host may not let anything be written into programs, those of the guests do. A program sends requests
of all shapes that may be hard to write into, first without the agent and then with it: every answer has to be the same,
byte by byte, and what was written and what was skipped has to be counted. Then the three services of
tests/apps/services: every request gives one trace with the right tree. The programs have been built on the host.
"""

# ruff: noqa: T201 (a program for the terminal)

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from agent.paths import architecture
from tests.support import services
from tests.support.daemon import Daemon, eventually, running
from tests.vm.complaints import complaints

KERNEL = "6.1"
SKIPS = ("own_header", "no_room", "shared_header")
"""What the stress has to meet with."""


def prepare(arch: str) -> None:
    """Build on the host what a guest of this architecture runs."""
    services.program(arch)


def wanted() -> bool:
    """Whether `make test-vm` does it on this kernel: it takes long, so on one of those that CI has."""
    return os.environ["GOSPAN_VM"] == KERNEL and architecture() == "amd64"


def main() -> int:
    """Run both, and print a line for each; 1 if one failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.injection", description=__doc__)
    add = parser.add_argument
    add("--requests", type=int, default=100_000, help="of the stress (default: %(default)s)")
    add("--clients", type=int, default=48, help="requests at a time (default: %(default)s)")
    add("--seconds", type=int, default=300, help="how long events are streamed (default: %(default)s)")
    failed = both(**vars(parser.parse_args()))
    for line in complaints():
        failed += 1
        print(f"  the kernel complains: {line}")
    return 1 if failed else 0


def both(*, requests: int, clients: int = 48, seconds: int = 20) -> int:
    """Run both, print a line for each, and give how many failed."""
    failed = 0
    load = ("-requests", str(requests), "-clients", str(clients), "-seconds", str(seconds))
    for what in ("stress", "services"):
        began = time.monotonic()
        try:
            result = stress(load) if what == "stress" else trees()
        except AssertionError as error:
            failed += 1
            result = f"FAILED: {error}"
        print(f"  {what}: {result}, {time.monotonic() - began:.1f} s")
    return failed


def stress(load: Sequence[str]) -> str:
    """Compare the run with the agent to the one without; say what was written. Raises AssertionError."""
    without = _stressed(load, None)
    with _tracing("propagation.http2=yes") as daemon:
        said = _stressed(load, daemon)
        last = daemon.stop()
    carried = {shape: count for shape, count in said.pop("carried").items() if not shape.endswith(" own")}
    own = without.pop("carried")
    assert set(own) <= {"http1 own", "http2 own"}, own
    assert said == without, (said, without)
    assert said["failed"] == 0, said
    kernel = {
        name.removeprefix("contexts_"): count
        for name, count in last["kernel"].items()
        if name.startswith("contexts_")
    }
    print(f"    carried: {carried}")
    print(f"    counted: {kernel}")
    for shape in ("http1 get", "http1 chunked", "http1 continue", "http2 many", "http2 cookie"):
        assert carried.get(shape), f"nothing was written into {shape}: {carried}"
    assert kernel["written"] >= sum(carried.values()), (kernel, carried)
    assert all(kernel.get(skip) for skip in SKIPS), kernel
    assert not kernel.get("write_failed"), kernel
    return f"{said['requests']} requests the same, {kernel['written']} of them written into"


def _stressed(load: Sequence[str], daemon: Daemon | None) -> dict[str, Any]:
    """What the stress says, its server fresh."""
    program = services.program()
    with services.started(program, "echo", "") as (server, addresses):
        if daemon is not None:
            eventually(lambda: daemon.traces(str(program)), "the server is traced")
        command = [str(program), "stress", "-next", addresses, *load]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
        assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-4000:]}"
        assert server.poll() is None, "the server has ended"
    print(done.stderr, end="")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def trees() -> str:
    """Send requests through the three services, and look at their traces. Raises AssertionError."""
    total = 0
    # HTTP/2's requests have too few headers for a buffer with room, and are joined by their connections.
    with (
        _tracing("propagation.http2=yes", "propagation.connections=yes") as daemon,
        services.serving() as system,
    ):
        eventually(lambda: daemon.traces(str(system.executable)), "the services are traced")
        for clients, requests in ((1, 10), (64, 64), (512, 512)):
            services.check_load(daemon, system, clients=clients, requests=requests)
            total += requests
        last = daemon.stop()
    written = last["kernel"]["contexts_written"]
    assert written >= 2 * total, last
    return f"{total} traces, {written} contexts written"


@contextmanager
def _tracing(*settings: str) -> Iterator[Daemon]:
    # Without the variables of the guest, which look like settings.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GOSPAN_")}
    with running("propagation.http1=yes", *settings, environ=environ) as daemon:
        yield daemon


if __name__ == "__main__":
    sys.exit(main())
