"""A collector that only counts: OTLP/gRPC in, numbers in a file that others map.

It runs as a process of its own (python -m bench.receiver FILE) and prints its port. A request is parsed once,
at about 0.3 us a span, and thrown away.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_COUNTS = struct.Struct("=QQQQ")
_NEVER = (1 << 64) - 1
_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"

# Only in the first requests are all spans looked at: what comes later started later.
_LOOKED_AT = 8


@dataclass(frozen=True, slots=True)
class Counts:
    """What was received so far. `earliest_ns` is the earliest start of a span, as Unix time."""

    spans: int = 0
    requests: int = 0
    bytes: int = 0
    earliest_ns: int = _NEVER


def read_counts(path: Path) -> Counts:
    """Read the receiver's file."""
    return Counts(*_COUNTS.unpack(path.read_bytes()[: _COUNTS.size]))


class _Counter:
    """Counts the spans of whatever is exported. Calls run one at a time, so nothing has to be locked."""

    def __init__(self, counts: mmap.mmap) -> None:
        self._counts = counts
        self._response = ExportTraceServiceResponse().SerializeToString()

    def export(self, request: bytes, context: grpc.ServicerContext) -> bytes:  # noqa: ARG002
        counts = Counts(*_COUNTS.unpack(self._counts[: _COUNTS.size]))
        groups = [
            scope.spans
            for resource in ExportTraceServiceRequest.FromString(request).resource_spans
            for scope in resource.scope_spans
        ]
        earliest = counts.earliest_ns
        if counts.requests < _LOOKED_AT:
            earliest = min([earliest, *(span.start_time_unix_nano for spans in groups for span in spans)])
        self._counts[: _COUNTS.size] = _COUNTS.pack(
            counts.spans + sum(map(len, groups)), counts.requests + 1, counts.bytes + len(request), earliest
        )
        return self._response


def serve(path: Path) -> None:
    """Serve until killed; write counts to the file and the port to standard output."""
    path.write_bytes(_COUNTS.pack(0, 0, 0, _NEVER))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), _COUNTS.size) as counts:
        export = grpc.unary_unary_rpc_method_handler(_Counter(counts).export)
        server = grpc.server(
            ThreadPoolExecutor(1),
            handlers=[grpc.method_handlers_generic_handler(_SERVICE, {"Export": export})],
            options=[("grpc.max_receive_message_length", -1)],
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        print(port, flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
