"""OTLP's signals, as far as the agent sends them: spans of others, and metrics of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from agent.spans.delivery import Accepted


@dataclass(frozen=True, slots=True)
class Signal:
    """What differs between signals: where requests go, and what answers look like."""

    name: str
    grpc_method: str
    http_path: str
    response: type[Any]
    rejected: str

    def accepted(self, response: Any) -> Accepted:
        """Read an answer of the type `response`."""
        partial = response.partial_success
        return Accepted(rejected=getattr(partial, self.rejected), message=partial.error_message)

    @property
    def parse(self) -> Callable[[bytes], Any]:
        """What decodes an answer; raises protobuf's DecodeError."""
        parse: Callable[[bytes], Any] = self.response.FromString
        return parse


TRACES = Signal(
    name="traces",
    grpc_method="/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    http_path="/v1/traces",
    response=ExportTraceServiceResponse,
    rejected="rejected_spans",
)
