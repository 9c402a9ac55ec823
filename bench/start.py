"""Measurements of starts: the agent's, a traced program's, and of the planning between exec and attached.

Each leaves nothing running, and gives its figures.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.collector import Collector
from bench.figures import Figure
from bench.gospan import GOSPAN
from bench.large import DOCKERD, RCLONE, fetch, serve_command
from bench.shared import MB, ROUNDS, Bench
from bench.target import BenchError, Target, running


def first_span(bench: Bench) -> list[Figure]:
    """Measure how long after its start the agent traces, and has delivered."""
    traced, delivered = [], []
    with running(bench.server) as target:
        for _ in range(ROUNDS):
            with Collector(bench.workspace) as collector:
                started, clock = time.monotonic(), time.time_ns()
                with Bench(bench.workspace, collector, bench.server).agent() as agent:
                    delivered.append(collector.first_span(agent, target.knock) - started)
                    traced.append((collector.counts().earliest_ns - clock) / 1e9)
    method = (
        f"requests every 5 ms from the agent's exec on; median of {ROUNDS}. Traced: start of the earliest "
        "span. Received: with the default delay for batches"
    )
    return [
        Figure(
            name="agent start to first request traced",
            value=statistics.median(traced),
            unit="s",
            method=method,
            limit=1.5,
        ),
        Figure(
            name="agent start to first span received",
            value=statistics.median(delivered),
            unit="s",
            method=method,
        ),
    ]


def planning(bench: Bench) -> list[Figure]:  # noqa: ARG001 -- as all others
    """Measure `gospan inspect` on a large executable, and what of it is work."""
    path = fetch(DOCKERD)
    inspected = [_run([str(GOSPAN), "inspect", "--json", str(path)]) for _ in range(ROUNDS)]
    empty = [_run([str(GOSPAN), "inspect", "--help"]) for _ in range(ROUNDS)]
    method = (
        f"gospan inspect --json {DOCKERD.name} ({path.stat().st_size / MB:.0f} MB, in the page cache) as a "
        f"process, less the same with --help, which is Python and its imports; medians of {ROUNDS}"
    )

    def median(of: int, runs: Sequence[tuple[float, float]]) -> float:
        return statistics.median(run[of] for run in runs)

    return [
        Figure(
            name="planning, 75 MB executable",
            value=1000 * (median(0, inspected) - median(0, empty)),
            unit="ms",
            method=method,
            limit=150,
        ),
        Figure(
            name="memory for planning it",
            value=(median(1, inspected) - median(1, empty)) / MB,
            unit="MB",
            method=f"peak resident memory, file pages included; {method}",
            limit=60,
        ),
        Figure(
            name="gospan inspect of it",
            value=1000 * median(0, inspected),
            unit="ms",
            method="the same, the whole process",
        ),
    ]


def exec_to_traced(bench: Bench) -> list[Figure]:
    """Measure from the exec of a large executable, never seen before, to its first request that is traced."""
    original = fetch(RCLONE)
    times = []
    for number in range(ROUNDS):
        # A new file each time: of a known one, every process is traced from its first instruction.
        copy = bench.workspace / f"large-{number}"
        shutil.copy(original, copy)
        try:
            times.append(_exec_to_traced(bench, copy))
        finally:
            copy.unlink()
    return [
        Figure(
            name="exec to traced, large executable",
            value=1000 * statistics.median(times),
            unit="ms",
            method=f"{RCLONE.name} ({original.stat().st_size / MB:.0f} MB) serves HTTP, started while the "
            "agent runs, a new copy each time; from before exec to the start of the earliest span, requests "
            f"as fast as it answers; median of {ROUNDS}; the program's own start is in it",
            limit=100,
        )
    ]


def _run(command: Sequence[str]) -> tuple[float, int]:
    """Run a command; give its wall time in seconds and its peak resident memory in bytes."""
    # A process between us and the command: the peaks that wait4 reports survive fork.
    code = (
        "import json, os, resource, subprocess, sys, time\n"
        "began = time.monotonic()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "took = time.monotonic() - began\n"
        "print(json.dumps([done.returncode, took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *command], capture_output=True, text=True, check=True, timeout=60
    )
    status, took, kilobytes = json.loads(done.stdout)
    if status:
        raise BenchError(f"{' '.join(command)} failed: {done.stderr}")
    return took, kilobytes << 10


def _exec_to_traced(bench: Bench, executable: Path) -> float:
    """Seconds from before the exec of a new file to the start of its earliest span."""
    command, port = serve_command(executable, bench.workspace)
    with (
        Collector(bench.workspace) as collector,
        Bench(bench.workspace, collector, executable).agent() as agent,
    ):
        time.sleep(2.5)  # until the agent rests
        clock = time.time_ns()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                collector.first_span(agent, Target(pid=process.pid, port=port).knock, every=0.001)
            finally:
                process.kill()
        return (collector.counts().earliest_ns - clock) / 1e9
