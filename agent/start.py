"""Starting the daemon: what it is made of, put together, and taken apart at its end in the right order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from agent.config import Config
from agent.daemon import ENDING, Daemon
from agent.kernel.errors import KernelError
from agent.kernel.features import features
from agent.kernel.programs import Programs
from agent.kernel.tracefs import find as find_tracefs
from agent.libraries import LIBRARIES
from agent.log import Logger
from agent.memory import keep_small
from agent.notify import Notifier
from agent.spans.http import redact_also
from agent.spans.pipeline import Pipeline
from agent.spans.rpc import use_names
from agent.spans.sinks import RecentSpans, open_sink
from agent.spans.sql import tell_query_text
from agent.status.report import Reporter
from agent.table_in_use import TableInUse
from agent.timers import Watchdog
from agent.tracer import Tracer

EXIT_CANNOT_RUN = 1


def run_daemon(config: Config, log: Logger, reread: Callable[[], Config]) -> int:
    """Trace until SIGTERM or SIGINT; give the exit status. Errors that end the daemon are told in one line.

    `reread` loads the configuration anew, for SIGHUP; it raises ConfigError.
    """
    keep_small()
    terminals = _terminals()
    with ExitStack() as stack:
        signals = stack.enter_context(_signals(*ENDING, signal.SIGHUP))
        try:
            found = features()
            loaded = Programs.load(
                found,
                config.kernel,
                libraries=LIBRARIES,
                propagation=config.propagation,
                when_needed=True,
                constants={"sql_transactions": config.sql.transactions},
            )
            programs = stack.enter_context(loaded)
        except KernelError as error:
            log.error(  # noqa: TRY400 -- what is wrong is the kernel or its settings: no traceback
                f"gospan can't trace here: {error}", hint="gospan check tells what is missing"
            )
            return EXIT_CANNOT_RUN
        _remove_stale_probes(log)
        sink = open_sink(config.export)
        recent = RecentSpans(config.status.recent_spans)
        redact_also(config.http.redact_query)
        use_names(config.rpc.names)
        tell_query_text(tell=config.sql.query_text)
        pipeline = Pipeline(programs.kinds, [sink.put, recent.put])
        table = TableInUse(config, log)
        watchdog = Watchdog(Notifier.from_environment())
        tracer = Tracer(config, programs, pipeline, table.resolver, log, watchdog.feed)
        stack.callback(tracer.close)
        reporter = Reporter(
            features=found,
            programs=programs,
            tracer=tracer,
            pipeline=pipeline,
            sink=sink,
            recent=recent,
            offsets=table.described,
        )
        daemon = Daemon(
            config, programs, tracer, pipeline, sink, recent, reporter, log, reread, table, watchdog
        )
        with daemon.answering():
            return daemon.run(signals, terminals)


def _remove_stale_probes(log: Logger) -> None:
    """Remove what an agent that was killed has left in tracefs; nothing is attached to it any more."""
    try:
        tracing = find_tracefs()
    except KernelError:
        return  # then this agent can't have made probes there
    try:
        removed = tracing.remove_stale()
    except KernelError as error:
        log.warning("probe definitions that a former agent left could not be removed", reason=str(error))
        return
    if removed:
        log.info("removed probe definitions that a former agent left", count=removed)


def _terminals() -> list[int]:
    """Give which of the standard streams are terminals; when such a one is gone, it is no terminal any more."""
    return [stream for stream in range(3) if os.isatty(stream)]


@contextmanager
def _signals(*numbers: signal.Signals) -> Iterator[int]:
    """Give a descriptor from which the numbers of signals that arrive can be read, a byte each."""
    receiving, sending = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    previous = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    try:
        yield receiving
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(receiving)
        os.close(sending)
