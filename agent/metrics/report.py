"""Sending the metrics at intervals, from a thread of their own, and opening the Prometheus endpoint."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid

from agent import __version__
from agent.config import Metrics, MetricsExporter
from agent.kernel.errors import KernelError
from agent.kernel.stats import counted
from agent.log import Logger, StateLog
from agent.metrics.gather import Gatherer
from agent.metrics.instruments import Point
from agent.metrics.otlp import METRICS, encode
from agent.spans.delivery import Accepted
from agent.spans.resource import Host, ProcessResource
from agent.spans.sinks import open_otlp

_NOT_TAKEN = ("UNIMPLEMENTED", "HTTP 404")
"""What a collector without a pipeline for metrics answers."""


class MetricsReporter:
    """Reports by a configuration until it is closed."""

    def __init__(self, settings: Metrics, gatherer: Gatherer, log: Logger) -> None:
        self._settings = settings
        self._gatherer = gatherer
        self._log = log
        self._states = StateLog(log)
        self._started = time.time_ns()
        self._ended = threading.Event()
        self._stack = contextlib.ExitStack()
        if settings.bpf_statistics:
            try:
                self._stack.enter_context(counted())
            except KernelError as error:
                log.warning("metrics.bpf_statistics has no effect", reason=str(error))
        if MetricsExporter.PROMETHEUS in settings.exporters:
            self._listen()
        if MetricsExporter.OTLP in settings.exporters and settings.endpoint:
            thread = threading.Thread(target=self._send_all, name="gospan-metrics", daemon=True)
            thread.start()

    def _listen(self) -> None:
        # Late: 11 MB that others do without.
        from agent.metrics.prometheus import PrometheusEndpoint

        host, port = self._settings.prometheus_host, self._settings.prometheus_port
        try:
            endpoint = PrometheusEndpoint(host, port, self._points)
        except OSError as error:
            self._log.warning(f"there is no Prometheus endpoint at {host}:{port}", reason=error.strerror)
            return
        self._stack.callback(endpoint.close)
        self._log.info(f"Prometheus finds metrics at http://{host}:{endpoint.port}/metrics")

    def _points(self) -> list[Point]:
        try:
            return self._gatherer.gather()
        except (KernelError, KeyError, RuntimeError) as error:
            # The loop may have changed or closed something meanwhile; the next reading will do.
            self._log.debug("metrics could not be read", reason=str(error))
            return []

    def _send_all(self) -> None:
        resource = ProcessResource(_describe(Host.read())).message()
        transport = None
        while not self._ended.wait(self._settings.interval):
            try:
                transport = transport or open_otlp(self._settings, METRICS)
            except (OSError, ValueError) as error:
                self._tell(f"CONFIGURATION: {error}")
                continue
            body = encode(self._points(), resource, started=self._started, now=time.time_ns())
            outcome = transport.post(body, self._settings.timeout)
            if not isinstance(outcome, Accepted) and outcome.code in _NOT_TAKEN:
                self._log.info(f"{self._settings.endpoint} takes no metrics: gospan sends none of its own")
                break
            self._tell("" if isinstance(outcome, Accepted) else str(outcome))
            if not isinstance(outcome, Accepted) and outcome.reconnect:
                transport.reconnect()
        if transport is not None:
            transport.close()

    def _tell(self, failure: str) -> None:
        where = self._settings.endpoint
        if failure:
            text = f"gospan's own metrics don't reach {where} ({failure}); newer ones will make up for them"
            self._states.change("metrics", where, "failing", None, text)
        elif self._states.repeats("metrics", where) or self._failed:
            self._states.change("metrics", where, "ok", None, f"gospan's own metrics reach {where} again")
        self._failed = bool(failure)

    _failed = False

    def close(self) -> None:
        """End; what was not sent isn't."""
        self._ended.set()
        self._stack.close()


def _describe(host: Host) -> dict[str, str | int | bool]:
    """Give the agent's own resource."""
    known = {
        "service.name": "gospan",
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": host.name,
        "host.id": host.id,
        "host.arch": host.arch,
    }
    return {name: value for name, value in known.items() if value} | {"process.pid": os.getpid()}
