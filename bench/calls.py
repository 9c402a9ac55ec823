"""What a request costs whose handler makes a call, and what one costs that the sampler does not want."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from agent.kernel.stats import counted
from bench.figures import Figure
from bench.gospan import Agent, ProgramRuns, program_runs
from bench.shared import ROUNDS, Bench
from bench.target import BenchError, flood, running
from tests.brokers import kafka
from tests.support import golang, kafka_go, sql
from tests.support.calls import calling
from tests.support.databases import postgresql
from tests.support.grpc import call, program, serving

_REQUESTS = 3000
_PATIENCE = 60.0


def client_span(bench: Bench) -> list[Figure]:
    """Count the runs of the agent's programs for requests that make one call each, to the same program.

    That is two requests of a server, which are measured without a call as well, and one call.
    """
    program = Path(shutil.copy(golang.build("http_calls"), bench.workspace / "http_calls"))
    rounds: dict[str, list[ProgramRuns]] = {}
    servers = 0
    # By itself, as what it does for other services is another library's.
    alone = {
        "GOSPAN_LIBRARIES_DISABLED": "HTTP/1 propagation,HTTP/2 propagation",
        "GOSPAN_PROPAGATION_HTTP1": "no",
        "GOSPAN_PROPAGATION_CONNECTIONS": "no",
    }
    none_of_many = {"OTEL_TRACES_SAMPLER_ARG": "0"}
    for which, sampler, settings in ROUNDS * (
        ("always_on", "always_on", alone),
        ("always_off", "always_off", alone),
        ("propagation", "always_on", {}),
        ("propagation, always_off", "always_off", {}),
        ("propagation, ratio", "traceidratio", none_of_many),
    ):
        with calling(program) as app, _agent(bench, program, sampler, settings) as agent:
            _wait_until_traced(agent, program)
            app.ask("/handler", 16)
            servers = 2 * _runs(agent, app.ask, "/nothing", _REQUESTS).runs
            rounds.setdefault(which, []).append(_runs(agent, app.ask, "/handler", _REQUESTS))
    runs = {which: _median(several) for which, several in rounds.items()}
    method = (
        f"tests/apps/http_calls, {_REQUESTS} requests over one connection; run_cnt and run_time_ns of the agent's "
        f"uprobe programs in /proc/PID/fdinfo, median of {ROUNDS} rounds in turn"
    )
    return [
        Figure(
            name=name,
            value=round((runs[which].runs - servers) / _REQUESTS, 2),  # a connection's end is a hit as well
            unit="/call",
            method=f"{method}; less those of both servers",
            limit=limit,
        )
        for name, which, limit in (
            ("probe hits, client span", "always_on", 2),
            ("probe hits, client span with its context sent on", "propagation", 3),
        )
    ] + [
        _unsampled("BPF time of unsampled, server and client", runs, method),
        *(
            _unsampled(
                f"BPF time of unsampled, its context sent on, {sampler}",
                runs,
                method,
                sampled="propagation",
                sampler=which,
            )
            for sampler, which in (
                ("always_off", "propagation, always_off"),
                ("traceidratio 0", "propagation, ratio"),
            )
        ),
    ]


def unsampled(bench: Bench) -> list[Figure]:
    """Measure the programs of a server for requests with and without a span."""
    rounds: dict[str, list[ProgramRuns]] = {}
    none_of_many = {"OTEL_TRACES_SAMPLER_ARG": "0"}
    for sampler in ROUNDS * ("always_on", "always_off", "traceidratio"):
        with running(bench.server) as target, _agent(bench, bench.server, sampler, none_of_many) as agent:
            _wait_until_traced(agent, bench.server)
            flood(target, requests=100)
            rounds.setdefault(sampler, []).append(_runs(agent, flood, target, requests=10_000))
    runs = {sampler: _median(several) for sampler, several in rounds.items()}
    method = (
        "http_client -requests 10000, OTEL_TRACES_SAMPLER against always_on; run_time_ns, "
        f"median of {ROUNDS} rounds in turn"
    )
    return [
        _unsampled("BPF time of unsampled, server", runs, method),
        _unsampled("BPF time of unsampled, server, traceidratio 0", runs, method, sampler="traceidratio"),
    ]


def captured_headers(bench: Bench) -> list[Figure]:
    """Measure the programs of a server with no header to tell of, and with three of those that each request has."""
    requests, runs = 10_000, {}
    for names in ("", "accept,x-request-id,x-forwarded-for"):
        with (
            running(bench.server) as target,
            _agent(bench, bench.server, "always_on", {"GOSPAN_HTTP_REQUEST_HEADERS": names}) as agent,
        ):
            _wait_until_traced(agent, bench.server)
            flood(target, requests=100)
            runs[names] = _runs(agent, flood, target, requests=requests)
    none, three = runs.values()
    method = f"http_client -requests {requests}, http.request_headers; run_cnt and run_time_ns, 0 and 3 headers in turn"
    return [
        Figure(
            name="probe hits that 3 captured headers add",
            value=round((three.runs - none.runs) / requests, 2),
            unit="/request",
            method=method,
            limit=0,
        ),
        Figure(
            name="BPF time that 3 captured headers add",
            value=(three.nanoseconds - none.nanoseconds) / requests / 1000,
            unit="us/span",
            method=f"{method}; {none.nanoseconds / requests / 1000:.2f} us/span without",
        ),
    ]


def grpc_spans(bench: Bench) -> list[Figure]:
    """Count the runs of the agent's programs for unary gRPC calls: of the client's by themselves, and the server's.

    Nothing is written into them, as that is another library's.
    """
    untraced = program()
    traced = Path(shutil.copy(untraced, bench.workspace / "grpc"))
    wanted = [{"method": "Unary"}] * _REQUESTS
    hits = {}
    log = Path("/dev/null")
    with (
        serving(traced, log=log) as server,
        serving(untraced, log=log) as other,
        _agent(bench, traced, "always_on", {"GOSPAN_PROPAGATION_GRPC": "no"}) as agent,
    ):
        _wait_until_traced(agent, traced)
        for side, path, address in (
            ("server", untraced, server.address),
            ("client", traced, other.address),
        ):
            hits[side] = _runs(agent, call, path, address, wanted).runs / _REQUESTS
    return [
        Figure(
            name=f"probe hits, gRPC {side} span",
            value=round(count, 2),
            unit="/call",
            method=f"tests/apps/grpc, {_REQUESTS} unary calls over one connection; run_cnt of the programs",
            limit=3,
        )
        for side, count in hits.items()
    ]


_MESSAGES = 400


def kafka_spans(bench: Bench) -> list[Figure]:
    """Count the runs of the agent's programs for messages that are sent one by one, and for reading them.

    Nothing is written into them, as that is another library's.
    """
    path = Path(shutil.copy(kafka_go.program(), bench.workspace / "kafka_go"))
    hits = {}
    with (
        kafka.running() as broker,
        kafka_go.running_app(path, broker.address) as app,
        _agent(bench, path, "always_on", {"GOSPAN_PROPAGATION_KAFKA": "no"}) as agent,
    ):
        _wait_until_traced(agent, path)
        topic = app.topic("bench")
        for side, command in (
            ("produced", {"op": "produce", "how": "each", "messages": [{"value": "v"}] * _MESSAGES}),
            ("consumed", {"op": "consume", "how": "only", "count": _MESSAGES}),
        ):
            hits[side] = _runs(agent, app.do, topic=topic, **command).runs / _MESSAGES
    return [
        Figure(
            name=f"probe hits, message {side}",
            value=round(count, 2),
            unit="/message",
            method=f"tests/apps/kafka_go, {_MESSAGES} messages one by one, a real Kafka; run_cnt of the programs",
            limit=3 if side == "produced" else 2,
        )
        for side, count in hits.items()
    ]


_QUERIES = 1000


def sql_spans(bench: Bench) -> list[Figure]:
    """Count the runs of the agent's programs for requests that make one query each, and for those that make none.

    The databases are SQLite, which is in the program itself, and a PostgreSQL, by pgx alone.
    """
    hits: dict[str, float] = {}
    with postgresql() as server:
        for only_pgx, databases in (
            (False, {"sqlite": "file::memory:?cache=shared"}),
            (True, {name: server.dsn(name) for name in ("pgx", "pgxpool")}),
        ):
            program = sql.program(only_pgx=only_pgx)
            path = Path(shutil.copy(program, bench.workspace / ("only_pgx" if only_pgx else "databases")))
            with sql.asking(path, databases) as app, _agent(bench, path, "always_on") as agent:
                _wait_until_traced(agent, path)
                for name in databases:
                    native = "native-" if name == "pgxpool" else ""
                    app.ask(f"{native}setup", name)
                    runs = {
                        way: _runs(agent, app.ask, way, name, times=_QUERIES).runs
                        for way in ("nothing", f"{native}query")
                    }
                    hits[name] = (runs[f"{native}query"] - runs["nothing"]) / _QUERIES
    return [
        Figure(
            name=f"probe hits, query by {how}",
            value=round(hits[name], 2),
            unit="/query",
            method=f"tests/apps/databases, {_QUERIES} requests with a query of which all rows are read, less as many "
            "without; run_cnt of the programs",
            limit=2,
        )
        for name, how in (
            ("sqlite", "database/sql"),
            ("pgx", "database/sql and pgx only"),
            ("pgxpool", "pgxpool"),
        )
    ]


def _runs(
    agent: Agent, do: Callable[..., object], *arguments: object, times: int = 1, **named: object
) -> ProgramRuns:
    """What the agent's programs run while something is done so many times."""
    with counted():
        before = program_runs(agent.pid)
        for _ in range(times):
            do(*arguments, **named)
        return program_runs(agent.pid) - before


def _median(rounds: Sequence[ProgramRuns]) -> ProgramRuns:
    return sorted(rounds, key=lambda one: one.nanoseconds)[len(rounds) // 2]


_STATISTICS = 20
"""Nanoseconds of each run that are for counting it (docs/metrics.md)."""


def _unsampled(
    name: str,
    runs: Mapping[str, ProgramRuns],
    method: str,
    *,
    sampled: str = "always_on",
    sampler: str = "always_off",
) -> Figure:
    """Compare the time of programs, less that of the statistics themselves."""
    own = {which: runs[which].nanoseconds - _STATISTICS * runs[which].runs for which in (sampled, sampler)}
    share = own[sampler] / max(own[sampled], 1)
    return Figure(name=name, value=100 * share, unit="% of sampled", method=method, limit=40)


def _agent(
    bench: Bench, program: Path, sampler: str, settings: Mapping[str, str] = MappingProxyType({})
) -> Agent:
    return Agent(
        bench.workspace,
        trace=program,
        sink="otlp",
        endpoint=bench.collector.endpoint,
        environment={"OTEL_TRACES_SAMPLER": sampler, **settings},
    )


def _wait_until_traced(agent: Agent, program: Path) -> None:
    """Wait for the agent to say so: where nothing is sampled no span tells."""
    deadline = time.monotonic() + _PATIENCE
    while f"tracing {program}" not in agent.log.read_text(errors="replace"):
        if not agent.running or time.monotonic() > deadline:
            raise BenchError(f"the agent does not trace {program}: {agent.complaint()}")
        time.sleep(0.05)
