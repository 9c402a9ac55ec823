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
from agent.spans.records import Encoder, record_kind, record_process

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
        self._encoders: dict[int, tuple[Encoder, Library]] = {}
        for number, kind in kinds.items():
            if kind.library is not None and kind.format.name in kind.library.records:
                encoder = kind.library.records[kind.format.name](kind.format)
                self._encoders[number] = encoder, kind.library
        self._resources: dict[int, Resource] = {}
        self._origins: dict[tuple[int, int], Origin] = {}
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
        for kind in self._encoders:
            self._origins.pop((process, kind), None)

    def encode(self, records: Iterable[bytes]) -> None:
        """Encode the records of spans and hand them to the sinks."""
        batches: dict[tuple[int, int], list[bytes]] = {}
        clock = self._offset()
        encoders = self._encoders
        for record in records:
            kind = record_kind(record)
            found = encoders.get(kind)
            if found is None:
                self.counts.unreadable += 1
                continue
            try:
                span = found[0](record, clock)
            except Exception:  # noqa: BLE001 -- one record that can't be read must not cost the others
                self.counts.unreadable += 1
                continue
            key = (record_process(record), kind)
            batch = batches.get(key)
            if batch is None:
                batches[key] = [span]
            else:
                batch.append(span)
        for key, spans in batches.items():
            origin = self._origins.get(key) or self._origin(key)
            if origin is None:
                self.counts.orphaned += len(spans)
                continue
            self.counts.made += len(spans)
            self.made_by[key[0]] += len(spans)
            name = self._encoders[key[1]][1].name
            self.counts.by_library[name] = self.counts.by_library.get(name, 0) + len(spans)
            for put in self._sinks:
                put(origin, spans)

    def _origin(self, key: tuple[int, int]) -> Origin | None:
        process, kind = key
        resource = self._resources.get(process)
        if resource is None:
            return None
        _, library = self._encoders[kind]
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
