"""Every metric of the agent: name, unit, kind, meaning. docs/metrics.md has the same table.

Names and units follow OpenTelemetry's conventions where those have one (otel.sdk.*, process.*); the rest is gospan.*.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from agent.spans.delivery import Duration

Attributes: TypeAlias = Mapping[str, str | int]


class Kind(enum.Enum):
    """The kinds of instruments. Sums count since the start of the agent."""

    COUNTER = "counter"
    UPDOWNCOUNTER = "updowncounter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Instrument:
    """A metric; `unit` in UCUM's notation."""

    name: str
    kind: Kind
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a metric at a moment."""

    instrument: Instrument
    value: float | Duration
    attributes: Attributes = field(default_factory=dict)


def _counter(name: str, unit: str, meaning: str) -> Instrument:
    return Instrument(name, Kind.COUNTER, unit, meaning)


def _updown(name: str, unit: str, meaning: str) -> Instrument:
    return Instrument(name, Kind.UPDOWNCOUNTER, unit, meaning)


PROCESSES = _updown("gospan.process.traced", "{process}", "Processes that are traced now.")
EXECUTABLES = _updown("gospan.executable.traced", "{executable}", "Executable files with probes in them.")
PROBES = _updown("gospan.probe.attached", "{probe}", "Places that are attached to, by `gospan.library`.")
SKIPPED = _updown("gospan.executable.skipped", "{executable}", "Go programs that are not traced.")
RECORDS = _counter("gospan.record.read", "{record}", "Records of all kinds that were taken from the kernel.")
SPANS = _counter("gospan.span.created", "{span}", "Spans that were made of records, by `gospan.library`.")
LOST = _counter("gospan.span.lost", "{span}", "Lost before they reached a queue, by `gospan.lost.reason`.")
CONTEXTS_WRITTEN = _counter(
    "gospan.context.written", "{request}", "Outgoing requests that trace context was written into."
)
CONTEXTS_JOINED = _counter(
    "gospan.context.joined", "{request}", "Requests that were joined to their client by the connection."
)
CONTEXTS_SKIPPED = _counter(
    "gospan.context.skipped",
    "{request}",
    "Outgoing requests that nothing was written into or noted for, by `gospan.skip.reason`.",
)
MAP_MEMORY = _updown("gospan.bpf.map.memory", "By", "Kernel memory of the BPF maps.")
BPF_RUNS = _counter(
    "gospan.bpf.program.runs",
    "{run}",
    "Runs of BPF programs, by `gospan.bpf.program`; metrics.bpf_statistics.",
)
BPF_TIME = _counter("gospan.bpf.program.time", "s", "Time in BPF programs, likewise.")

QUEUE_SIZE = _updown("otel.sdk.processor.span.queue.size", "{span}", "Spans that wait for the exporter.")
QUEUE_CAPACITY = _updown(
    "otel.sdk.processor.span.queue.capacity", "{span}", "Spans that may wait (queue_size)."
)
QUEUE_BYTES = _updown(
    "gospan.queue.memory", "By", "Memory of the spans that wait or are on their way, encoded."
)
PROCESSED = _counter(
    "otel.sdk.processor.span.processed",
    "{span}",
    "Spans that left the queue, or with `error.type` queue_full or already_shutdown never entered it.",
)
INFLIGHT = _updown("otel.sdk.exporter.span.inflight", "{span}", "Spans of the request that is on its way.")
EXPORTED = _counter(
    "otel.sdk.exporter.span.exported",
    "{span}",
    "Spans whose export ended; with `error.type` they were dropped.",
)
EXPORT_TIME = Instrument(
    "otel.sdk.exporter.operation.duration",
    Kind.HISTOGRAM,
    "s",
    "How long requests took, each attempt by itself; with `error.type` they failed.",
)
RETRIES = _counter("gospan.export.retries", "{request}", "Requests that were sent again.")

CPU_TIME = _counter("process.cpu.time", "s", "The agent's processor time, by `cpu.mode`.")
MEMORY = _updown("process.memory.usage", "By", "The agent's resident memory.")
THREADS = _updown("process.thread.count", "{thread}", "The agent's threads.")
FILES = _updown("process.unix.file_descriptor.count", "{file_descriptor}", "The agent's open files.")
UPTIME = _updown("process.uptime", "s", "Time since the agent's start.")

INSTRUMENTS = (
    *(PROCESSES, EXECUTABLES, PROBES, SKIPPED, RECORDS, SPANS, LOST),
    *(CONTEXTS_WRITTEN, CONTEXTS_JOINED, CONTEXTS_SKIPPED, MAP_MEMORY, BPF_RUNS, BPF_TIME),
    *(QUEUE_SIZE, QUEUE_CAPACITY, QUEUE_BYTES, PROCESSED, INFLIGHT, EXPORTED, EXPORT_TIME, RETRIES),
    *(CPU_TIME, MEMORY, THREADS, FILES, UPTIME),
)
