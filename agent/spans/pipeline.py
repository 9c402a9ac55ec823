"""From records to the sink: each batch of records becomes, process by process, a batch of encoded spans."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from agent import __version__
from agent.kernel.programs import RecordKind
from agent.libraries import Library
from agent.spans.otlp import Origin
from agent.spans.records import KIND_SIZE, PROCESS, Encoder

SCOPE_PREFIX = "gospan"
"""Instrumentation scopes are called gospan/<library>, with the agent's version."""

_CLOCK_STEP = 100_000
"""By how many ns the clocks' offset must have changed before it counts as a change and not as the reading's noise."""


Put: TypeAlias = Callable[[Origin, Sequence[bytes]], None]
"""Takes the encoded spans of one process and library."""


@dataclass(slots=True)
class SpanCounts:
    """Since the start: spans made, records that no encoder could read, spans of processes that were not known."""

    made: int = 0
    unreadable: int = 0
    orphaned: int = 0
    records: int = 0
    by_library: dict[str, int] = field(default_factory=dict)


class Pipeline:
    """Encodes records. Not for several threads: the loop that drains the records calls it."""

    def __init__(self, kinds: Mapping[int, RecordKind], sinks: Iterable[Put]) -> None:
        self._sinks = tuple(sinks)
        self._encoders: dict[bytes, Encoder] = {}
        self._libraries: dict[bytes, Library] = {}
        for number, kind in kinds.items():
            if kind.library is not None and kind.format.name in kind.library.records:
                encoder = kind.library.records[kind.format.name](kind.format)
                head = number.to_bytes(KIND_SIZE, "little")
                self._encoders[head], self._libraries[head] = encoder, kind.library
        self._resources: dict[int, Resource] = {}
        self._origins: dict[bytes, Origin] = {}
        self._clock = 0
        self.counts = SpanCounts()
        self.made_by: Counter[int] = Counter()
        """Spans made, by the process's number."""

    def know(self, process: int, resource: Resource) -> None:
        """Take the resource of a process, which may be another than before; `process` is the number in its records."""
        self._drop_origins(process)
        self._resources[process] = resource

    def forget(self, process: int) -> None:
        """Drop what is known of a process that ended."""
        self._resources.pop(process, None)
        self.made_by.pop(process, None)
        self._drop_origins(process)

    def _drop_origins(self, process: int) -> None:
        for head in self._encoders:
            self._origins.pop(head + process.to_bytes(8, "little"), None)

    def encode(self, records: Iterable[bytes], other: Callable[[bytes], bool] = lambda _: False) -> None:
        """Encode the records of spans and hand them to the sinks.

        `other` is given each record that isn't a span's, and says whether it could read it. What it tells of processes
        goes for all spans of `records`, also for those before it.
        """
        batches: dict[bytes, list[bytes]] = {}
        clock = self._offset()
        encoder_of = self._encoders.get
        for record in records:
            head = record[:KIND_SIZE]
            encoder = encoder_of(head)
            if encoder is None:
                if not other(record):
                    self.counts.unreadable += 1
                continue
            try:
                span = encoder(record, clock)
            except Exception:  # noqa: BLE001 -- one record that can't be read must not cost the others
                self.counts.unreadable += 1
                continue
            key = head + record[PROCESS]
            batch = batches.get(key)
            if batch is None:
                batches[key] = [span]
            else:
                batch.append(span)
        for key, spans in batches.items():
            self._hand_on(key, spans)

    def _hand_on(self, key: bytes, spans: list[bytes]) -> None:
        origin = self._origins.get(key) or self._origin(key)
        if origin is None:
            self.counts.orphaned += len(spans)
            return
        self.counts.made += len(spans)
        self.made_by[int.from_bytes(key[KIND_SIZE:], "little")] += len(spans)
        name = self._libraries[key[:KIND_SIZE]].name
        self.counts.by_library[name] = self.counts.by_library.get(name, 0) + len(spans)
        for put in self._sinks:
            put(origin, spans)

    def _origin(self, key: bytes) -> Origin | None:
        resource = self._resources.get(int.from_bytes(key[KIND_SIZE:], "little"))
        if resource is None:
            return None
        library = self._libraries[key[:KIND_SIZE]]
        scope = InstrumentationScope(name=f"{SCOPE_PREFIX}/{library.object}", version=__version__)
        origin = Origin.of(resource, scope, schema_url=library.schema_url)
        self._origins[key] = origin
        return origin

    def _offset(self) -> int:
        """How many ns turn CLOCK_MONOTONIC into Unix time; kept while it hardly changes, so that time runs on."""
        readings = []
        for _ in range(3):
            before = time.monotonic_ns()
            now = time.time_ns()
            after = time.monotonic_ns()
            readings.append((after - before, now - (before + after) // 2))
        _, offset = min(readings)  # the one that was interrupted least
        if abs(offset - self._clock) > _CLOCK_STEP:
            self._clock = offset
        return self._clock
