"""The daemon: one loop that drains the records, follows processes, and ends on SIGTERM with nothing lost."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent import log as logging
from agent.config import Config, ConfigError, Metrics, change
from agent.kernel.programs import Programs
from agent.log import Event, Logger, emit
from agent.losses import Losses
from agent.memory import give_back, settle
from agent.metrics.gather import Gatherer
from agent.metrics.report import MetricsReporter
from agent.spans.pipeline import Pipeline
from agent.spans.records import record_kind
from agent.spans.sinks import RecentSpans, Sink
from agent.status.report import Reload, Reporter
from agent.status.server import SocketError, StatusServer
from agent.table_in_use import TableInUse
from agent.timers import Timer, Watchdog
from agent.tracer import Tracer
from agent.wording import counted

EXIT_OK = 0

_FLUSH_TIMEOUT = 10.0
"""Seconds that the last spans have to reach the collector; below the unit's TimeoutStopSec."""

ENDING = (signal.SIGTERM, signal.SIGINT)

_DRAIN_LIMIT = 1 << 14
"""Records that are taken at a time."""

_LEAST_RECORD = 64
"""Bytes that a record has at least (struct record_header)."""

_STATUS_INTERVAL = 10.0


class Daemon:
    """The loop. Everything but the sending of spans happens here, in one thread."""

    def __init__(
        self,
        config: Config,
        programs: Programs,
        tracer: Tracer,
        pipeline: Pipeline,
        sink: Sink,
        recent: RecentSpans,
        reporter: Reporter,
        log: Logger,
        reread: Callable[[], Config],
        table: TableInUse,
        watchdog: Watchdog,
    ) -> None:
        self._config = config
        self._programs = programs
        self._tracer = tracer
        self._pipeline = pipeline
        self._sink = sink
        self._recent = recent
        self._reporter = reporter
        self._log = log
        self._reread = reread
        self._table = table
        self._reload: Reload | None = None
        self._server: StatusServer | None = None
        self._asked, self._ask = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watchdog = watchdog
        self._notifier = watchdog.notifier
        self._looking: Iterator[None] | None = None
        self._to_tell: list[Callable[[], object]] = []
        kinds = {kind.format.name: number for number, kind in programs.kinds.items() if kind.library is None}
        self._started_kind = kinds["process_exec_record"]
        self._ended_kind = kinds["process_exit_record"]
        self._losses = Losses(programs, pipeline.counts, log)
        self._metrics: MetricsReporter | None = None

    def _report(self, settings: Metrics) -> None:
        """Begin to report the agent's own metrics, and end what was begun before."""
        if self._metrics is not None:
            self._metrics.close()
        gatherer = Gatherer(
            self._programs,
            self._tracer,
            self._pipeline,
            self._sink,
            self._losses.by_reason,
            bpf_statistics=settings.bpf_statistics,
        )
        self._metrics = MetricsReporter(settings, gatherer, self._log)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Open the status socket, if there is to be one and it can be opened: tracing goes on without it."""
        path = self._config.status.socket
        try:
            if path:
                self._server = StatusServer(Path(path), self._recent, self._log, self._wake)
        except SocketError as error:
            self._log.warning(f"no status can be asked for: {error}")
        try:
            yield
        finally:
            if self._server is not None:
                self._server.close()

    def _wake(self) -> None:
        """Have the loop make a report; from any thread."""
        with suppress(BlockingIOError):  # then it was told already
            os.write(self._ask, b"x")

    def _answer(self) -> None:
        os.read(self._asked, 1 << 10)
        if self._server is None:
            return
        try:
            report = self._reporter.report(reload=self._reload, lost=self._losses.by_reason())
        except Exception as error:  # noqa: BLE001 -- somebody who asks must not end the tracing
            self._log.error("a bug in gospan: no report can be made", exc_info=True)
            self._server.fail(f"there is a bug in gospan: {type(error).__name__}")
        else:
            self._server.answer(report)

    def run(self, signals: int, terminals: list[int]) -> int:
        """Run until a signal that ends the daemon can be read from the descriptor `signals`, or a terminal is gone."""
        reader = self._programs.reader
        scan = Timer(self._config.discovery.scan_interval)
        status = Timer(_STATUS_INTERVAL)
        self._report(self._config.metrics)
        # Attaching to hundreds of executables may take minutes: neither a boot nor a watchdog should wait for that.
        self._notifier.ready("looking for programs to trace")
        self._look()
        self._when_looked(self._tell_start)
        with selectors.DefaultSelector() as selector:
            selector.register(signals, selectors.EVENT_READ)
            selector.register(reader, selectors.EVENT_READ)
            selector.register(self._asked, selectors.EVENT_READ)
            selector.register(self._tracer.watch, selectors.EVENT_READ)
            more = False
            while True:
                wait = 0.0 if more or self._looking else self._config.kernel.drain_interval
                ready = {key.fileobj for key, _ in selector.select(wait)}
                # Some signals only wake the loop (FileWatch).
                arrived = os.read(signals, 1 << 10) if signals in ready else b""
                if any(number in ENDING for number in arrived):
                    break
                if signal.SIGHUP in arrived:
                    if not all(map(os.isatty, terminals)):
                        break  # whoever started it there has left
                    self.reload()
                    scan = Timer(self._config.discovery.scan_interval)
                self._tracer.files_changed()
                more = self._drain()
                if self._asked in ready:
                    self._answer()
                if scan.due() and self._looking is None:
                    self._look()
                    self._look_at_table()
                if self._looked():
                    self._tell()
                if status.due():
                    self._reporter.tick()
                    self._notifier.status(self._sentence())
                    self._losses.tell()
                self._watchdog.feed()
        return self._stop()

    def _tell_start(self) -> None:
        self._log.info("gospan is tracing", **self._summary())
        self._notifier.status(self._sentence())
        settle()

    def _look(self) -> None:
        """Begin to look for processes that no event told of, from the start."""
        self._looking = self._tracer.looking() if self._config.discovery.enabled else iter(())

    def _looked(self) -> bool:
        """Go on looking for a while; whether that is done now. The loop has other things to do in between."""
        if self._looking is None:
            return False
        until = time.monotonic() + self._config.kernel.drain_interval
        for _ in self._looking:
            if time.monotonic() > until:
                return False
        self._looking = None
        self._tracer.tidy()
        give_back()
        return True

    def reload(self) -> None:
        """Read the configuration again and apply what can be; a bad one changes nothing."""
        self._notifier.reloading()
        try:
            new = self._reread()
        except ConfigError as error:
            problems = tuple(map(str, error.problems))
            others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            self._reload = Reload(time.time(), problems=problems)
            self._log.error(f"the configuration stays as it is: {problems[0]}{others}")
        else:
            changed = change(self._config, new)
            self._apply(changed.config)
            self._reload = Reload(time.time(), applied=changed.applied, postponed=changed.postponed)

            def tell() -> None:
                self._log.info(f"the configuration was read again: {changed}")
                for warning in new.warnings:
                    self._log.warning(warning)
                self._notifier.ready(self._sentence())

            self._when_looked(tell)
            return
        self._notifier.ready(self._sentence())

    def _when_looked(self, tell: Callable[[], object]) -> None:
        """Have something told when all that is wanted now is attached to."""
        self._to_tell.append(tell)
        if self._looking is None:
            self._tell()

    def _tell(self) -> None:
        waiting, self._to_tell = self._to_tell, []
        for tell in waiting:
            tell()

    def _look_at_table(self) -> None:
        """Go by another offset table if one has been installed, or taken back."""
        if not self._table.renew(self._config):
            return
        table = self._table.described
        self._reporter.offsets = table
        changed = self._tracer.resolve_by(self._table.resolver)
        self._when_looked(
            lambda: emit(
                self._log,
                Event.OFFSETS_UPDATED,
                f"the offset table is {table.path} now",
                generated=f"{table.generated:%Y-%m-%dT%H:%M:%SZ}" if table.generated else "",
                attached_anew=changed,
            )
        )

    def _apply(self, new: Config) -> None:
        old, self._config = self._config, new
        if new.log != old.log:
            logging.configure(new.log.level, new.log.format)
        if new.export != old.export:
            self._sink.reconfigure(new.export)
        if new.metrics != old.metrics:
            self._report(new.metrics)
        if new.status != old.status:
            self._recent.resize(new.status.recent_spans)
        shared = ("discovery", "http", "libraries", "sampler", "resource")
        if any(getattr(new, name) != getattr(old, name) for name in shared):
            self._tracer.reconfigure(new)
            self._look()

    def _drain(self) -> bool:
        """Take records that wait, and say whether there may be more: the loop has other things to do in between.

        Processes are met before their spans are handed on, and forgotten after.
        """
        records = self._programs.reader.drain(_DRAIN_LIMIT)
        self._pipeline.counts.records += len(records)
        ended: list[bytes] = []

        def of_process(record: bytes) -> bool:
            kind = record_kind(record)
            if kind == self._started_kind:
                self._tracer.process_started(record)
            elif kind == self._ended_kind:
                ended.append(record)
            else:
                return False
            return True

        self._pipeline.encode(records, of_process)
        for record in ended:
            self._tracer.process_ended(record)
        return len(records) == _DRAIN_LIMIT

    def _drain_all(self) -> None:
        """Take what waits now: not more than the buffer holds, however fast it fills."""
        waiting = self._programs.reader.pending()
        for _ in range(waiting // (_DRAIN_LIMIT * _LEAST_RECORD) + 1):
            if not self._drain():
                return

    def _stop(self) -> int:
        self._notifier.stopping("sending the last spans")
        summary = self._summary()
        if self._metrics is not None:
            self._metrics.close()
        self._drain_all()
        self._sink.shutdown(_FLUSH_TIMEOUT)
        # Last, for it takes a tenth of a second a probe where there is no uprobe_multi, and systemd's patience may end.
        self._tracer.close()
        self._losses.tell()
        summary["spans"] = self._pipeline.counts.made
        self._log.info("gospan stops", **summary, **self._sink_summary())
        return EXIT_OK

    def _sentence(self) -> str:
        traced, executables = len(self._tracer.traced), len(self._tracer.executables)
        said = f"tracing {counted(traced, 'process', 'processes')} of {counted(executables, 'executable')}"
        return f"{said}; {counted(self._pipeline.counts.made, 'span')} so far"

    def _summary(self) -> dict[str, object]:
        return {
            "backend": self._programs.backend.value,
            "executables": len(self._tracer.executables),
            "processes": len(self._tracer.traced),
            "spans": self._pipeline.counts.made,
        }

    def _sink_summary(self) -> dict[str, object]:
        dropped: Counter[str] = Counter()
        for status in self._sink.status():
            dropped.update(status.dropped)
        sent = [status.sent for status in self._sink.status()]
        counters = {name: count for name, count in self._programs.counters().items() if count}
        return {"sent": sent if len(sent) > 1 else sent[0], "dropped": dict(dropped), "kernel": counters}
