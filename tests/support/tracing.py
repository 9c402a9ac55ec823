"""The agent's loop by hand, in the test's own process: the test says when records are drained and /proc is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.config import Config
from agent.kernel.features import features
from agent.kernel.programs import Programs
from agent.libraries import LIBRARIES
from agent.offsets.resolve import Resolver
from agent.spans.otlp import Origin
from agent.spans.pipeline import Pipeline
from agent.spans.records import record_kind, record_tgid
from agent.tracer import Tracer
from tests.support.daemon import attributes, eventually


@dataclass
class Messages:
    """A log that a test can read."""

    lines: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def debug(self, event: str, **fields: object) -> None:
        self.lines.append(("debug", event, fields))

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.lines.append(("error", event, fields))

    def of(self, path: object) -> list[str]:
        """What was said of an executable."""
        return [event for _, event, fields in self.lines if fields.get("exe") == str(path)]


@dataclass
class Tracing:
    """A tracer with real programs; `started` and `ended` are the processes that records told of."""

    programs: Programs
    pipeline: Pipeline
    tracer: Tracer
    log: Messages
    spans: list[tuple[int, Span]]
    started: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    def drain(self) -> None:
        """Do what the daemon does with all records that wait."""
        names = {number: kind.format.name for number, kind in self.programs.kinds.items()}
        while records := self.programs.reader.drain():
            spans = []
            for record in records:
                name = names[record_kind(record)]
                if name == "process_exec_record":
                    self.started.append(record_tgid(record))
                    self.tracer.process_started(record)
                elif name == "process_exit_record":
                    self.ended.append(record_tgid(record))
                    self.tracer.process_ended(record)
                else:
                    spans.append(record)
            self.pipeline.encode(spans)

    def spans_of(self, pid: int) -> list[Span]:
        """The spans of a process."""
        return [span for process, span in self.spans if process == pid]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Drain until something is so."""

        def holds() -> bool:
            self.drain()
            return condition()

        eventually(holds, what)

    def until_spans(self, pid: int, count: int) -> None:
        """Drain until there are so many spans of a process, and there must not be more."""
        self.until(lambda: len(self.spans_of(pid)) >= count, f"{count} spans of process {pid}")
        assert len(self.spans_of(pid)) == count

    def until_started(self, pid: int) -> None:
        """Drain until the beginning of a process was told."""
        self.until(lambda: pid in self.started, f"process {pid} was told of")

    def until_untraced(self, path: object) -> None:
        """Drain until no process of an executable is traced any more."""
        self.until(lambda: not self.traced(path), f"the processes of {path} ended")

    def traced(self, path: object) -> list[int]:
        """The processes that are traced of an executable."""
        return [one.pid for one in self.tracer.traced if one.executable.path == str(path)]

    def executables(self, path: object) -> int:
        """How many files of this path have probes in them."""
        return sum(one.path == str(path) for one in self.tracer.executables)


@contextmanager
def tracing(config: Config | None = None) -> Iterator[Tracing]:
    """Load everything and follow processes, until the block ends. Nothing has been looked for yet."""
    config = config or Config()
    spans: list[tuple[int, Span]] = []

    def put(origin: Origin, encoded: Sequence[bytes]) -> None:
        pid = attributes(Resource.FromString(origin.resource))["process.pid"]
        spans.extend((pid, Span.FromString(one)) for one in encoded)

    log = Messages()
    with Programs.load(
        features(), config.kernel, libraries=LIBRARIES, propagation=config.propagation
    ) as programs:
        assert not programs.refused
        pipeline = Pipeline(programs.kinds, [put])
        tracer = Tracer(config, programs, pipeline, Resolver(), log)
        programs.reader.drain()
        try:
            yield Tracing(programs, pipeline, tracer, log, spans)
        finally:
            tracer.close()
