"""Reading what the agent counts, from any thread while the loop runs: nothing is changed, or waited for."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from agent.kernel.programs import Programs
from agent.kernel.stats import program_stats
from agent.metrics import instruments as of
from agent.metrics.instruments import Point
from agent.propagation import contexts
from agent.spans.export import QUEUE_FULL, SHUTDOWN, ExportStatus
from agent.spans.pipeline import Pipeline
from agent.spans.sinks import Sink
from agent.tracer import Tracer

_SELF = Path("/proc/self")


class Gatherer:
    """Knows where the agent counts what. `losses` gives what was lost before the exporter, by reason."""

    def __init__(
        self,
        programs: Programs,
        tracer: Tracer,
        pipeline: Pipeline,
        sink: Sink,
        losses: Callable[[], Mapping[str, int]],
        *,
        bpf_statistics: bool = False,
    ) -> None:
        self._programs = programs
        self._tracer = tracer
        self._pipeline = pipeline
        self._sink = sink
        self._losses = losses
        self._bpf_statistics = bpf_statistics
        self._started = time.monotonic()

    def gather(self) -> list[Point]:
        """Read everything. Raises KernelError if the kernel doesn't tell."""
        points = list(self._of_tracing())
        for number, status in enumerate(self._sink.status()):
            points += _of_exporter(number, status)
        points += self._of_agent()
        return points

    def _of_tracing(self) -> Iterator[Point]:
        executables = self._tracer.executables
        yield Point(of.PROCESSES, len(self._tracer.traced))
        yield Point(of.EXECUTABLES, len(executables))
        yield Point(of.SKIPPED, len(self._tracer.ignored))
        probes: Counter[str] = Counter()
        for executable in executables:
            for library in executable.libraries:
                probes[library.library.name] += len(library.probes)
        for name, count in probes.items():
            yield Point(of.PROBES, count, {"gospan.library": name})
        counts = self._pipeline.counts
        yield Point(of.RECORDS, counts.records)
        for name, count in list(counts.by_library.items()):
            yield Point(of.SPANS, count, {"gospan.library": name})
        for reason, count in self._losses().items():
            yield Point(of.LOST, count, {"gospan.lost.reason": reason})
        sent = contexts(self._programs.counters())
        yield Point(of.CONTEXTS_WRITTEN, sent.written)
        yield Point(of.CONTEXTS_JOINED, sent.joined)
        for reason, count in sent.skipped.items():
            yield Point(of.CONTEXTS_SKIPPED, count, {"gospan.skip.reason": reason})
        yield Point(of.MAP_MEMORY, self._programs.memory)
        if self._bpf_statistics:
            for name, descriptor in list(self._programs.descriptors()):
                stats = program_stats(descriptor)
                attributes = {"gospan.bpf.program": name}
                yield Point(of.BPF_RUNS, stats.runs, attributes)
                yield Point(of.BPF_TIME, stats.run_time_ns / 1e9, attributes)

    def _of_agent(self) -> Iterator[Point]:
        times = os.times()
        yield Point(of.CPU_TIME, times.user, {"cpu.mode": "user"})
        yield Point(of.CPU_TIME, times.system, {"cpu.mode": "system"})
        # proc(5), statm: the second number is that of resident pages.
        pages = int((_SELF / "statm").read_text().split()[1])
        yield Point(of.MEMORY, pages * os.sysconf("SC_PAGE_SIZE"))
        yield Point(of.THREADS, sum(1 for _ in (_SELF / "task").iterdir()))
        yield Point(of.FILES, sum(1 for _ in (_SELF / "fd").iterdir()))
        yield Point(of.UPTIME, time.monotonic() - self._started)


def _of_exporter(number: int, status: ExportStatus) -> Iterator[Point]:
    kind = {"grpc": "otlp_grpc_span_exporter", "http/protobuf": "otlp_http_span_exporter"}.get(
        status.protocol, "gospan_span_exporter"
    )
    here = {"otel.component.type": kind, "otel.component.name": f"{kind}/{number}", **dict(status.server)}
    queue = {
        "otel.component.type": "batching_span_processor",
        "otel.component.name": f"batching_span_processor/{number}",
    }
    yield Point(of.QUEUE_SIZE, status.waiting, queue)
    if status.capacity:
        yield Point(of.QUEUE_CAPACITY, status.capacity, queue)
    yield Point(of.QUEUE_BYTES, status.held_bytes, queue)
    given = status.sent + sum(n for reason, n in status.dropped.items() if reason not in _BY_QUEUE)
    yield Point(of.PROCESSED, given, queue)
    yield Point(of.INFLIGHT, status.held - status.waiting, here)
    yield Point(of.EXPORTED, status.sent, here)
    for reason, count in status.dropped.items():
        if reason in _BY_QUEUE:
            yield Point(of.PROCESSED, count, queue | {"error.type": _BY_QUEUE[reason]})
        else:
            yield Point(of.EXPORTED, count, here | {"error.type": reason})
    for code, duration in status.durations.items():
        yield Point(of.EXPORT_TIME, duration, here | ({"error.type": code} if code else {}))
    yield Point(of.RETRIES, status.retries, here)


_BY_QUEUE = {QUEUE_FULL: "queue_full", SHUTDOWN: "already_shutdown"}
