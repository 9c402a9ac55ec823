"""Settings that are one of a few words."""

from __future__ import annotations

import enum


class Sink(enum.Enum):
    """Where finished spans go (OTEL_TRACES_EXPORTER)."""

    OTLP = "otlp"
    CONSOLE = "console"
    NONE = "none"


class Protocol(enum.Enum):
    """OTLP's transports that are implemented (OTEL_EXPORTER_OTLP_PROTOCOL)."""

    GRPC = "grpc"
    HTTP = "http/protobuf"


class Compression(enum.Enum):
    """How requests are compressed."""

    NONE = "none"
    GZIP = "gzip"


class MetricsExporter(enum.Enum):
    """Where the agent's own metrics go (OTEL_METRICS_EXPORTER)."""

    OTLP = "otlp"
    PROMETHEUS = "prometheus"


class BufferKind(enum.Enum):
    """How records reach user space."""

    AUTO = "auto"
    RING = "ring"
    PERF = "perf"


class AttachWay(enum.Enum):
    """How probes are attached."""

    AUTO = "auto"
    UPROBE_MULTI = "uprobe_multi"
    PERF = "perf"
    TRACEFS = "tracefs"


class UpdateMode(enum.Enum):
    """Where a newer offset table is fetched from."""

    OFF = "off"
    DIRECT = "direct"
    IMAGE = "image"


class RpcNames(enum.Enum):
    """Which attributes a call has: those of the conventions, those of before (up to 1.37), or both."""

    CURRENT = "current"
    OLD = "old"
    BOTH = "both"


class Level(enum.Enum):
    """From which severity on messages are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.Enum):
    """How messages are written."""

    AUTO = "auto"
    CONSOLE = "console"
    JOURNAL = "journal"
    JSON = "json"
