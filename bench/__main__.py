"""What `make bench` runs: all measurements, or those that are named; a table, and build/bench.json."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from agent.kernel.errors import KernelError
from bench import calls, load, start
from bench.collector import Collector
from bench.figures import Figure, machine, table, write_json
from bench.gospan import ROOT
from bench.shared import Bench
from bench.target import BenchError, build_server, client
from tests.vm.tools import VmError

WORKSPACE = ROOT / "build" / "bench"
RESULT = ROOT / "build" / "bench.json"

Measure = Callable[[Bench], list[Figure] | tuple[list[Figure], list[object]]]

MEASURES: dict[str, Measure] = {
    "hits": load.probe_hits,
    "client": calls.client_span,
    "grpc": calls.grpc_spans,
    "kafka": calls.kafka_spans,
    "sql": calls.sql_spans,
    "unsampled": calls.unsampled,
    "headers": calls.captured_headers,
    "side-by-side": load.side_by_side,
    "agent": load.agent_costs,
    "sustained": load.sustained,
    "start": start.first_span,
    "exec": start.exec_to_traced,
    "planning": start.planning,
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("measure", nargs="*", choices=[[], *MEASURES], help="default: all")
    chosen = parser.parse_args(arguments).measure or list(MEASURES)
    if os.geteuid() != 0:
        print("attaching probes needs root: run make bench as root", file=sys.stderr)
        return 1
    place = machine()
    WORKSPACE.mkdir(parents=True, exist_ok=True)
    client()  # built before any clock runs

    figures: list[Figure] = []
    rounds: list[object] = []
    failed = False
    with Collector(WORKSPACE) as collector:
        bench = Bench(WORKSPACE, collector, build_server(WORKSPACE))
        for name in chosen:
            began = time.monotonic()
            try:
                measured = MEASURES[name](bench)
            except (BenchError, KernelError, VmError) as error:
                failed = True
                print(f"{name}: {error}", file=sys.stderr)
                continue
            if isinstance(measured, tuple):
                rounds.append({"measure": name, "runs": measured[1]})
                figures += measured[0]
            else:
                figures += measured
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)

    print(", ".join(f"{key} {value}" for key, value in place.items()), "", sep="\n")
    print(table(figures))
    write_json(RESULT, place, figures, rounds)
    print(f"\nAll of it, with the single rounds: {RESULT.relative_to(ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
