"""The three services of tests/apps/services, and the traces that their requests have to give."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.paths import architecture
from tests.support.daemon import Daemon, attributes, eventually
from tests.support.golang import NEWEST, build

ROLES = ("load", "front", "front", "middle", "middle", "back")
"""Who makes the spans of a trace, from its root on: a client's and a server's in turn."""


@dataclass(frozen=True)
class Services:
    """The running services: their processes by role, and where the first one listens."""

    executable: Path
    pids: dict[str, int]
    address: str

    def load(self, *, clients: int, requests: int) -> tuple[int, dict[str, Any]]:
        """Send requests; give the process that sent them and what it says of them."""
        command = [str(self.executable), "load", "-next", self.address]
        command += ["-clients", str(clients), "-requests", str(requests)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0
        return process.pid, json.loads(output)


def program(arch: str = "") -> Path:
    """The program, built for this machine unless told otherwise."""
    return build("services", go=NEWEST, arch=arch or architecture())


@contextmanager
def serving(
    logs: Path | None = None, *, environ: Mapping[str, Mapping[str, str]] = MappingProxyType({})
) -> Iterator[Services]:
    """Run the services until the block ends. In `logs` each writes the trace contexts that it is sent.

    `environ` are variables of single roles.
    """
    executable = program()
    pids: dict[str, int] = {}
    address = ""
    with ExitStack() as stack:
        for role in ("back", "middle", "front"):
            arguments = () if logs is None else ("-log", str(logs / role))
            process, address = stack.enter_context(
                started(executable, role, address, *arguments, environ=environ.get(role, {}))
            )
            pids[role] = process.pid
        yield Services(executable, pids, address)


@contextmanager
def started(
    executable: Path,
    role: str,
    following: str,
    *arguments: str,
    environ: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run one service, which calls the one at the address `following`, and give the address on which it listens."""
    command = [str(executable), role, "-next", following, *arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()


def until_known(daemon: Daemon, services: Services) -> None:
    """Send single requests until one's first span comes too: that of a process which the agent has seen start.

    A file may have another number in the kernel than for programs, as on an overlay: then the agent learns it from the
    first start that the kernel tells of, and of what that process does at once something may be missed.
    """
    spans = len(ROLES) - 1  # of the services, which are known
    with started(services.executable, "idle", ""):
        for sent in range(1, 100):
            pid, _ = services.load(clients=1, requests=1)
            wanted = sent * spans
            eventually(lambda: sum(by_role(daemon, services.pids).values()) >= wanted, "the services' spans")  # noqa: B023
            if by_role(daemon, {"load": pid})["load"]:
                return
    raise AssertionError("no process of the program becomes known")


def check_load(daemon: Daemon, services: Services, *, clients: int, requests: int) -> None:
    """Send requests, and see that each gives one trace with the right tree."""
    known = {*services.pids.values()}
    before = {span.span_id for resource, span in daemon.spans() if resource["process.pid"] in known}
    pid, said = services.load(clients=clients, requests=requests)
    assert said["failed"] == 0
    pids = services.pids | {"load": pid}
    wanted = requests * len(ROLES) + len(before)
    with suppress(AssertionError):  # it is told below what is missing
        eventually(lambda: len(daemon.collector.spans) >= wanted, "all spans")
        eventually(lambda: sum(by_role(daemon, pids).values()) >= wanted, "all spans of these processes")
    counts = by_role(daemon, pids)
    assert sum(counts.values()) >= wanted, (
        f"{wanted} spans wanted of {pids}, {counts} came, {len(daemon.collector.spans)} in all; {daemon.stop()}"
    )
    found = spans_by_request(daemon, pids, without=before)
    assert len(found) == requests
    assert {request: wrong for request, spans in found.items() if (wrong := check_trace(spans))} == {}


def by_role(daemon: Daemon, pids: Mapping[str, int]) -> dict[str, int]:
    """How many spans of each of these processes have come."""
    counts = Counter(resource["process.pid"] for resource, _ in daemon.spans())
    return {role: counts[pid] for role, pid in pids.items()}


def spans_by_request(
    daemon: Daemon, pids: dict[str, int], *, without: Collection[bytes] = ()
) -> dict[str, list[tuple[str, Span]]]:
    """The spans of these processes with their role, by the request's id; `without` those of former requests."""
    roles = {pid: role for role, pid in pids.items()}
    found: dict[str, list[tuple[str, Span]]] = defaultdict(list)
    for resource, span in daemon.spans():
        role = roles.get(resource["process.pid"])
        if role is not None and span.span_id not in without:
            has = attributes(span)
            target = has.get("url.path") or has["url.full"]
            found[target.rpartition("/")[2]].append((role, span))
    return found


def check_trace(spans: Sequence[tuple[str, Span]]) -> list[str]:
    """What is wrong with the trace of a request: it has to be one chain, from the load to the back."""
    wrong = []
    if len(spans) != len(ROLES):
        wrong.append(f"{len(spans)} spans: {sorted(role for role, _ in spans)}")
    if len({span.trace_id for _, span in spans}) != 1:
        wrong.append("several traces")
    by_parent = {span.parent_span_id: (role, span) for role, span in spans}
    parent = b""
    chain: list[str] = []
    while parent in by_parent and len(chain) < len(spans):
        role, span = by_parent[parent]
        kind = Span.SPAN_KIND_SERVER if len(chain) % 2 else Span.SPAN_KIND_CLIENT
        chain.append(role if span.kind == kind else f"{role} ({span.kind})")
        parent = span.span_id
    if tuple(chain) != ROLES:
        wrong.append(f"the chain is {chain}")
    return wrong
