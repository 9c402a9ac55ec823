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
    """Measure the plan of a large executable, as the agent makes it that has its types and tables read."""
    path = fetch(DOCKERD)
    runs = [_plan(path) for _ in range(ROUNDS)]
    inspected = [_run([str(GOSPAN), "inspect", "--json", str(path)]) for _ in range(ROUNDS)]
    method = (
        f"{DOCKERD.name} ({path.stat().st_size / MB:.0f} MB, in the page cache) opened and planned: the first plan "
        f"of a process that has imported and read all else; median of {ROUNDS}"
    )
    return [
        Figure(
            name="planning, 75 MB executable",
            value=1000 * statistics.median(took for took, _ in runs),
            unit="ms",
            method=method,
            limit=150,
        ),
        Figure(
            name="memory for planning it",
            value=statistics.median(memory for _, memory in runs) / MB,
            unit="MB",
            method=f"growth of peak resident memory, file pages included; {method}",
            limit=60,
        ),
        Figure(
            name="gospan inspect of it",
            value=1000 * statistics.median(inspected),
            unit="ms",
            method="gospan inspect --json, the whole process",
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


def _plan(path: Path) -> tuple[float, int]:
    """Plan an executable in a process of its own; give wall time in seconds and growth of its peak memory in bytes."""
    code = (
        "import json, resource, sys, time\n"
        "from agent.commands.inspect import object_types\n"
        "from agent.config import Config\n"
        "from agent.executable import Executable\n"
        "from agent.offsets.active import tables_of\n"
        "from agent.offsets.resolve import Resolver\n"
        "from agent.plan import make_plan\n"
        "types, resolver = object_types(), Resolver(tables_of(Config()).in_force().table)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, began = peak(), time.monotonic()\n"
        "with Executable(sys.argv[1]) as executable:\n"
        "    assert make_plan(executable, types, resolver).traced\n"
        "print(json.dumps([time.monotonic() - began, (peak() - before) << 10]))\n"
    )
    # Started by one that is small: a peak survives fork.
    starter = "import subprocess, sys\nsys.exit(subprocess.call(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", starter, sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{path} can't be planned: {done.stderr}")
    took, memory = json.loads(done.stdout)
    return took, memory


def _run(command: Sequence[str]) -> float:
    """Run a command; give its wall time in seconds."""
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed: {done.stderr}")
    return time.monotonic() - began


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
