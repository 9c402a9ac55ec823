"""Writing trace context into requests, on a guest's kernel; run there as `python -m tests.vm.injection`.

The kernel of the host may not let anything be written into programs, those of the guests do. A program sends requests
of all shapes that may be hard to write into, first without the agent and then, many more of them, with it: every answer
has to be the same, byte by byte, and what was written and what was skipped has to be counted. Then the three services
of tests/apps/services: every request gives one trace with the right tree. The programs have been built on the host.
"""

# ruff: noqa: T201 (a program for the terminal)

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from agent.paths import architecture
from tests.support import services
from tests.support.daemon import Daemon, eventually, running
from tests.vm.complaints import told

KERNEL = "6.1"
SKIPS = ("own_header", "no_room", "shared_header")
"""What the stress has to meet with."""
WRITTEN = (
    *(
        "http1 get",
        "http1 post",
        "http1 chunked",
        "http1 cookie",
        "http1 continue",
        "http1 proxy",
        "http1 many",
    ),
    *(
        "http2 get",
        "http2 post",
        "http2 chunked",
        "http2 cookie",
        "http2 continue",
        "http2 proxy",
        "http2 many",
    ),
    "tunnel",
)
"""Requests that trace context has to be written into."""
_OWN = ("http1 own", "http2 own")
_TESTS = ("stress", "services")
_HTTP2 = ("propagation.http2=yes",)
SPARING = (
    *("sampler.name=parentbased_traceidratio", "sampler.arg=0.05"),
    *("kernel.drain_interval=1s", "export.schedule_delay=5s", "discovery.scan_interval=60s"),
)
"""Contexts are written whether a trace is sampled or not. The spans of all requests would be most of the work, and the
agent's timers, on a processor that is emulated, too.
"""


def prepare(arch: str) -> None:
    """Build on the host what a guest of this architecture runs."""
    services.program(arch)


def wanted() -> bool:
    """Whether `make test-vm` does it on this kernel: it takes long, so on one of those that CI has."""
    return os.environ["GOSPAN_VM"] == KERNEL and architecture() == "amd64"


def main() -> int:
    """Run all, or what is named, and print a line for each; 1 if one failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.injection", description=__doc__)
    add = parser.add_argument
    add("what", nargs="*", help=f"which of {', '.join(_TESTS)} (default: all)")
    add("--requests", type=int, default=100_000, help="of the stress (default: %(default)s)")
    add("--clients", type=int, default=48, help="requests at a time (default: %(default)s)")
    add("--seconds", type=int, default=300, help="how long events are streamed (default: %(default)s)")
    add(
        "--rare", type=int, default=8, help="one request in so many is of a rare shape (default: %(default)s)"
    )
    add(
        "--limit", type=int, default=86400, help="seconds after which no more are sent (default: %(default)s)"
    )
    add("--variants", type=int, default=32, help="of each shape (default: %(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="setting of the agent")
    options = vars(parser.parse_args())
    settings = (*_HTTP2, *SPARING, *options.pop("set"))
    failed = run(options.pop("what") or _TESTS, settings=settings, **options)
    return 1 if failed + told() else 0


def run(
    what: Sequence[str] = _TESTS,
    *,
    requests: int,
    clients: int = 48,
    seconds: int = 20,
    rare: int = 1,
    limit: int = 3600,
    variants: int = 8,
    settings: Sequence[str] = _HTTP2,
) -> int:
    """Run these, print a line for each, and give how many failed."""
    failed = 0
    more = (f"-requests={requests}", f"-seconds={seconds}", f"-rare={rare}", f"-limit={limit}s")
    load = [f"-{name}={value}" for name, value in (("clients", clients), ("variants", variants))]
    for one in what:
        began = time.monotonic()
        try:
            result = trees() if one == "services" else stress(load, more, settings)
        except AssertionError as error:
            failed += 1
            result = f"FAILED: {error}"
        print(f"  {one}: {result}, {time.monotonic() - began:.1f} s")
    return failed


def stress(load: Sequence[str], more: Sequence[str], settings: Sequence[str]) -> str:
    """Compare each answer with the one without the agent; say what was written. Raises AssertionError."""
    with tempfile.TemporaryDirectory() as directory:
        answers = Path(directory) / "answers"
        without = _stressed((*load, "-learn", str(answers)), None)
        assert without["failed"] == 0, without
        assert {shape for shape, count in without["carried"].items() if count} <= set(_OWN), without
        with tracing(*settings) as daemon:
            said = _stressed((*load, *more, "-check", str(answers)), daemon)
            last = daemon.stop()
    kernel = contexts(last)
    print(f"    sent:    {said['sent']}")
    print(f"    carried: {said['carried']}")
    carried = {shape: count for shape, count in said["carried"].items() if shape not in _OWN}
    assert said["failed"] == 0, said
    for shape in WRITTEN:
        assert carried.get(shape), f"nothing was written into {shape}: {carried}"
    assert kernel["written"] >= sum(carried.values()), (kernel, carried)
    assert all(kernel.get(skip) for skip in SKIPS), kernel
    assert not kernel.get("write_failed"), kernel
    return f"{said['requests']} requests in {said['seconds']:.0f} s, {kernel['written']} contexts written"


def contexts(last: Mapping[str, Any]) -> dict[str, int]:
    """What was counted of contexts, by the agent's last message; it is printed."""
    kernel = {
        name.removeprefix("contexts_"): count
        for name, count in last["kernel"].items()
        if name.startswith("contexts_")
    }
    print(f"    counted: {kernel}")
    return kernel


def _stressed(load: Sequence[str], daemon: Daemon | None) -> dict[str, Any]:
    """What the stress says."""
    program = services.program()
    # The probes are there before the stress begins, since another process runs the same program.
    with services.started(program, "idle", ""):
        if daemon is not None:
            eventually(lambda: daemon.traces(str(program)), "the program is traced")
        # What goes wrong it says at once, on standard error.
        done = subprocess.run([str(program), "stress", *load], stdout=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 0, f"exit status {done.returncode}"
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def trees() -> str:
    """Send requests through the three services, and look at their traces. Raises AssertionError."""
    total = 0
    # What can't be written into is joined by its connection. When the agent says that it traces it knows all processes
    # that were there before.
    with (
        tempfile.TemporaryDirectory() as directory,
        services.serving(Path(directory)) as system,
        tracing("propagation.http2=yes", "propagation.connections=yes") as daemon,
    ):
        eventually(lambda: daemon.traces(str(system.executable)), "the services are traced")
        services.until_known(daemon, system)
        for clients, requests in ((1, 10), (64, 64), (512, 512)):
            services.check_load(daemon, system, clients=clients, requests=requests)
            total += requests
        sent_on(system, Path(directory))
        last = daemon.stop()
    written = last["kernel"]["contexts_written"]
    assert written >= 2 * total, last
    return f"{total} traces, {written} contexts written"


def sent_on(system: services.Services, logs: Path) -> None:
    """See that what a request comes with goes all the way, sampled or not. Raises AssertionError."""
    sent = {}
    for number in range(1, 41):
        context = (
            f"{number:032x}",
            f"{number:016x}",
            "01" if number % 2 else "00",
            f"vendor={number},other=o",
        )
        trace_id, span_id, flags, state = sent[f"state-{number}"] = context
        headers = {"traceparent": f"00-{trace_id}-{span_id}-{flags}", "tracestate": state}
        with urlopen(Request(f"http://{system.address}/front/state-{number}", headers=headers)) as answer:
            answer.read()
    for role in ("middle", "back"):
        lines = [line.split(" ") for line in (logs / role).read_text().splitlines()]
        came = {path.rpartition("/")[2]: (parent, state) for path, parent, state in lines}
        for request, (trace_id, span_id, flags, state) in sent.items():
            parent, came_state = came[request]
            _, came_trace, came_span, came_flags = parent.split("-")
            assert (came_trace, came_flags, came_state) == (trace_id, flags, state), (role, request, parent)
            # Where no span is made, the parent stays.
            assert (came_span != span_id) == (flags == "01"), (role, request, parent)


@contextmanager
def tracing(*settings: str) -> Iterator[Daemon]:
    """Run the agent, which writes into HTTP/1's requests, in a guest."""
    # Without the variables of the guest, which look like settings.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GOSPAN_")}
    with running("propagation.http1=yes", *settings, environ=environ) as daemon:
        yield daemon


if __name__ == "__main__":
    sys.exit(main())
