"""The agent on a guest's kernel, end to end; run there as `python -m tests.vm.server`.

First every BPF object is loaded, and nothing of it may be refused. Then, for each way to attach that this kernel has
and each kind of buffer, the agent is started as users start it, next to servers of Go's two kinds of maps, and every
request's span is compared as the tests of the host do it. The programs have been built on the host (`prepare`).
"""

# ruff: noqa: T201 (a program for the terminal)

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config import AttachWay, BufferKind
from agent.kernel import btf
from agent.kernel.features import parse_release
from agent.kernel.objects import LoadOptions, load_object
from agent.paths import architecture, object_file
from tests.support.comparison import compare
from tests.support.daemon import Daemon, eventually, running
from tests.support.golang import NEWEST, build
from tests.support.http import Server, expects_span, send, serving
from tests.vm import check, grpc_calls, injection, libraries
from tests.vm.complaints import told

OLDEST = "1.19.13"
"""Go up to 1.23 has hash maps, since 1.24 Swiss maps; up to 1.26 HTTP/2 is a part of net/http itself."""
RELEASES = (OLDEST, NEWEST)
MODES = ("http1", "h2", "h2c")
REQUESTS = 60
"""In each mode, to each server, with each combination."""
INJECTIONS = 600
"""Requests of the stress in tests/vm/injection.py; those of 10^5 are for runs by hand."""
FAULTS = "0.1"
# enum bpf_map_type, linux/bpf.h
_MAP_TYPES = {BufferKind.RING: 27, BufferKind.PERF: 4}
BUFFERS = (BufferKind.RING, BufferKind.PERF)


@dataclass(frozen=True)
class Combination:
    """A way to attach and a kind of buffer."""

    attach: AttachWay
    buffer: BufferKind

    def __str__(self) -> str:
        return f"{self.attach.value} + {self.buffer.value}"


def prepare(arch: str) -> None:
    """Build on the host what guests of this architecture run; there is no compiler in all of them."""
    injection.prepare(arch)
    if arch == "amd64":
        grpc_calls.prepare()
    else:
        libraries.prepare(arch)
    build("http_client", go=NEWEST, arch=arch)
    for release in RELEASES:
        build("http_server", go=release, arch=arch)


def main() -> int:
    """Print a line for each object and combination; give 1 if one failed, else 0."""
    if check.main():
        return 1
    failed = sum(not loads(path) for path in sorted(object_file("process").parent.glob("*.bpf.o")))
    for number, combination in enumerate(combinations()):
        began = time.monotonic()
        try:
            result = trace(combination, seed=number + 1)
        except AssertionError as error:
            failed += 1
            result = f"FAILED: {error}"
        print(f"  {combination}: {result}, {time.monotonic() - began:.1f} s")
    if injection.wanted():
        failed += injection.run(requests=INJECTIONS) + grpc_calls.run()
    if libraries.wanted():
        failed += libraries.run()
    return 1 if failed + told() else 0


def loads(path: Path) -> bool:
    """Whether the kernel takes all programs of an object, with all that they may be asked to do; if not, the
    verifier's reasons are printed.
    """
    began = time.monotonic()
    types = btf.read(str(path))
    writing = {name: True for name in types.variables if name.startswith("write_")}
    with load_object(str(path), LoadOptions(constants=writing), types=types) as loaded:
        count, refused = len(loaded.programs), loaded.refused
    print(f"  {path.name}: {count} programs, {len(refused)} refused, {time.monotonic() - began:.1f} s")
    for one in refused:
        print(f"    {one.program}: {one.reason}")
    return not refused


def combinations() -> list[Combination]:
    """All that this kernel must be able to do; it isn't asked, so that nothing is left out by mistake."""
    ways = [AttachWay.PERF, AttachWay.TRACEFS]
    if parse_release(os.uname().release) >= (6, 6, 0):
        ways.insert(0, AttachWay.UPROBE_MULTI)
    return [Combination(way, buffer) for way in ways for buffer in BUFFERS]


def trace(combination: Combination, *, seed: int) -> str:
    """Start the agent, send requests, compare their spans; say how many those were. Raises AssertionError."""
    settings = (f"kernel.attach={combination.attach.value}", f"kernel.buffer={combination.buffer.value}")
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # One is there before the agent, and found in /proc; the other starts under its eyes.
        servers = {OLDEST: stack.enter_context(_served(OLDEST, logs))}
        # Without the variables of the guest, which look like settings.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GOSPAN_")}
        daemon = stack.enter_context(running(*settings, environ=environ))
        began = next(one for one in daemon.messages if one["message"] == "gospan is tracing")
        assert began["backend"] == combination.attach.value, began
        buffers = _maps(daemon.process.pid) & {*_MAP_TYPES.values()}
        assert buffers == {_MAP_TYPES[combination.buffer]}, buffers
        servers[NEWEST] = stack.enter_context(_served(NEWEST, logs))
        wanted = {release: _requests(daemon, server, seed) for release, server in servers.items()}
        total = sum(map(len, wanted.values()))

        with suppress(AssertionError):  # it is told below what is missing
            eventually(lambda: len(daemon.collector.spans) >= total, "all spans", timeout=60)
        last = daemon.stop()
        left = Path("/sys/kernel/tracing/uprobe_events").read_text()
        assert not left, f"the agent leaves behind: {left}"
        spans = {release: daemon.spans_of(server.pid) for release, server in servers.items()}
        _nothing_amiss(daemon)
        counts = {release: f"{len(spans[release])} of {len(wanted[release])}" for release in spans}
        assert sum(map(len, spans.values())) == total, f"{counts} spans; {last}"
        for release in spans:
            compare(spans[release], wanted[release], logs / release, release)
    return f"{total} spans"


def _requests(daemon: Daemon, server: Server, seed: int) -> list[dict[str, Any]]:
    """Send a server's requests once it is traced; give the client's lines of those that a span is due for."""
    eventually(lambda: daemon.traces(str(server.executable)), "the server is traced")
    lines = [
        line for mode in MODES for line in send(server, mode, "-faults", FAULTS, requests=REQUESTS, seed=seed)
    ]
    return [line for line in lines if expects_span(line)]


def _maps(pid: int) -> set[int]:
    """The types of the BPF maps that a process has open (proc(5), fdinfo)."""
    types = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if found := re.search(r"^map_type:\t(\d+)$", path.read_text(), re.MULTILINE):
                types.add(int(found[1]))
    return types


@contextmanager
def _served(release: str, logs: Path) -> Iterator[Server]:
    with serving(build("http_server", go=release, arch=architecture()), log=logs / release) as server:
        yield server


def _nothing_amiss(daemon: Daemon) -> None:
    """Whatever is refused, skipped or lost, the agent warns of it."""
    said = [one for one in daemon.messages if one.get("level") in ("warning", "error")]
    assert not said, said


if __name__ == "__main__":
    sys.exit(main())
