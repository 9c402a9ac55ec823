"""Measurements under load: what requests cost their target, spans the agent, and how much it can take.

Each leaves nothing running, and gives its figures.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from agent.kernel.stats import counted
from bench.figures import Figure
from bench.gospan import cpu_seconds, map_bytes, program_runs, resident_bytes
from bench.shared import MB, ROUNDS, Bench
from bench.target import CONNECTIONS, BenchError, Load, flood, running, saturate


def side_by_side(bench: Bench) -> tuple[list[Figure], list[object]]:
    """Measure the target without and with the agent, in turn; also the agent's size under that load."""
    rounds: list[dict[str, object]] = []
    plain: list[tuple[Load, Load]] = []
    traced: list[tuple[Load, Load]] = []
    received: list[float] = []
    with running(bench.server) as target:
        saturate(target, seconds=1)  # warm the caches
        for _ in range(ROUNDS):
            plain.append((saturate(target, seconds=5), flood(target, seconds=3, rate=2000)))
            with bench.agent() as agent:
                bench.collector.first_span(agent, target.knock)
                before = bench.collector.spans
                full = saturate(target, seconds=5)
                received.append((bench.collector.wait_for(before + full.requests) - before) / full.requests)
                traced.append((full, flood(target, seconds=3, rate=2000)))
    for number in range(ROUNDS):
        rounds.extend(
            {"round": number, "traced": with_agent, "load": kind, **asdict(load)}
            for with_agent, pair in ((False, plain[number]), (True, traced[number]))
            for kind, load in zip(("wrk, 16 connections", "2,000 requests/s"), pair, strict=True)
        )

    def median(loads: Sequence[tuple[Load, Load]], of: Callable[[tuple[Load, Load]], float]) -> float:
        return statistics.median(map(of, loads))

    def rate(pair: tuple[Load, Load]) -> float:
        return pair[0].rate

    def cpu(pair: tuple[Load, Load]) -> float:
        return pair[0].cpu_us

    def middle(pair: tuple[Load, Load]) -> float:
        return pair[1].p50_us

    wrk = (
        "wrk -t2 -c16 -d5s with 8 header lines, the target's processor time from /proc/PID/stat; without and "
        f"with the agent in turn, median of {ROUNDS}; nothing pinned: wrk, target, agent and collector share "
        "all cores"
    )
    steady = "http_client -rate 2000 -duration 3s over 16 connections, in the same rounds"
    figures = [
        Figure(name="requests/s, untraced", value=median(plain, rate), unit="1/s", method=wrk),
        Figure(name="requests/s, traced", value=median(traced, rate), unit="1/s", method=wrk),
        Figure(
            name="throughput of untraced",
            value=median(traced, rate) / median(plain, rate),
            unit="",
            method=wrk,
            limit=0.65,
            higher=True,
        ),
        Figure(name="target CPU, untraced", value=median(plain, cpu), unit="us/request", method=wrk),
        Figure(name="target CPU, traced", value=median(traced, cpu), unit="us/request", method=wrk),
        Figure(
            name="target CPU added",
            value=median(traced, cpu) - median(plain, cpu),
            unit="us/request",
            method=wrk,
            limit=6,
        ),
        Figure(
            name="spans received at saturation",
            value=100 * min(received),
            unit="% of requests",
            method="of the requests that wrk counted, up to 16 fewer than it sent; the lowest round",
        ),
        Figure(name="p50 at 2,000/s, untraced", value=median(plain, middle), unit="us", method=steady),
        Figure(name="p50 at 2,000/s, traced", value=median(traced, middle), unit="us", method=steady),
    ]
    return figures, list(rounds)


def probe_hits(bench: Bench) -> list[Figure]:
    """Count the runs of the agent's programs over exactly 10,000 requests."""
    requests = 10_000
    with running(bench.server) as target, bench.agent() as agent:
        bench.collector.first_span(agent, target.knock)
        with counted():
            before, spans = program_runs(agent.pid), bench.collector.spans
            flood(target, requests=requests)
            ran = program_runs(agent.pid) - before
        received = bench.collector.wait_for(spans + requests) - spans
    if not ran.runs:
        raise BenchError("the kernel shows no runs in /proc/PID/fdinfo; it does from Linux 5.12 on")
    method = (
        "http_client -requests 10000, traceparent in each; run_cnt and run_time_ns of the agent's uprobe "
        "programs in /proc/PID/fdinfo, statistics enabled (some 20 ns of each run are theirs); without the one hit "
        f"at the end of each of the {CONNECTIONS} connections"
    )
    hits = (ran.runs - CONNECTIONS) / requests
    return [
        Figure(name="probe hits", value=hits, unit="/request", method=method, limit=3),
        Figure(name="spans", value=received / requests, unit="/request", method=method),
        Figure(
            name="BPF time", value=ran.nanoseconds / requests / 1000, unit="us/span", method=method, limit=2
        ),
    ]


def agent_costs(bench: Bench) -> list[Figure]:
    """Measure the agent at rest and at 20,000 spans a second."""
    rate, seconds = 20_000, 10
    with running(bench.server) as target, bench.agent() as agent:
        bench.collector.first_span(agent, target.knock)
        time.sleep(3)
        idle, idle_cpu, began = resident_bytes(agent.pid), cpu_seconds(agent.pid), time.monotonic()
        time.sleep(3)
        idle_share = (cpu_seconds(agent.pid) - idle_cpu) / (time.monotonic() - began)
        before, spent = bench.collector.spans, cpu_seconds(agent.pid)
        load = flood(target, seconds=seconds, rate=rate, pipeline=4)
        received = bench.collector.wait_for(before + load.requests) - before
        spent = cpu_seconds(agent.pid) - spent
        peak, maps = resident_bytes(agent.pid, peak=True), map_bytes(agent.pid)
    resting = "VmRSS 3 s after the first span, one executable attached"
    busy = (
        f"http_client -rate {rate} -pipeline 4 for {seconds} s, processor time from /proc/PID/stat, "
        "all cores shared"
    )
    return [
        Figure(name="agent memory, idle", value=idle / MB, unit="MB", method=resting, limit=70),
        Figure(
            name="agent CPU, idle",
            value=100 * idle_share,
            unit="% of a core",
            method="over 3 s of no requests",
        ),
        Figure(name="spans sent at 20k/s", value=load.rate, unit="1/s", method=busy),
        Figure(name="lost at 20k/s", value=load.requests - received, unit="spans", method=busy, limit=0),
        Figure(
            name="agent CPU per span", value=spent / max(received, 1) * 1e6, unit="us", method=busy, limit=8
        ),
        Figure(name="agent memory, at 20k/s", value=peak / MB, unit="MB", method=f"VmHWM; {busy}", limit=100),
        Figure(
            name="BPF maps",
            value=maps / MB,
            unit="MB",
            method="memlock of all maps in /proc/PID/fdinfo of the agent",
            limit=32,
        ),
    ]


def sustained(bench: Bench) -> tuple[list[Figure], list[object]]:
    """Find the highest rate without loss, the agent on one core."""
    core = max(os.sched_getaffinity(0))
    steps: list[dict[str, float]] = []
    with (
        running(bench.server) as target,
        bench.agent(wrapper=("taskset", "-c", str(core))) as agent,
    ):
        bench.collector.first_span(agent, target.knock)
        for rate in (30_000, 40_000, 50_000, 60_000, 80_000, 100_000):
            before, spent = bench.collector.spans, cpu_seconds(agent.pid)
            load = flood(target, seconds=5, rate=rate, pipeline=16)
            received = bench.collector.wait_for(before + load.requests) - before
            share = (cpu_seconds(agent.pid) - spent) / load.seconds
            steps.append(
                {"asked": rate, "sent": load.rate, "lost": load.requests - received, "agent_cores": share}
            )
            if received < load.requests or load.rate < 0.9 * rate:
                break
    lossless = [step for step in steps if step["lost"] == 0]
    best = max(lossless, key=lambda step: step["sent"], default={"sent": 0.0, "agent_cores": 0.0})
    method = (
        "http_client -rate 30000, 40000, ... -pipeline 16, 5 s each, until spans are lost or the target "
        f"can't keep up; agent on core {core} by taskset, all others where the kernel puts them"
    )
    return [
        Figure(
            name="sustained without loss",
            value=best["sent"],
            unit="spans/s",
            method=method,
            limit=50_000,
            higher=True,
        ),
        Figure(
            name="agent CPU at that rate", value=100 * best["agent_cores"], unit="% of a core", method=method
        ),
    ], list(steps)
