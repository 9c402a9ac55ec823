"""Every setting there is: its name, type, default and meaning. A new setting is one line here.

The reference (docs/configuration.md), the commented default file (systemd/config.toml), the environment's
names and the checks of files all follow from these dataclasses, and a test compares the written ones with
them.
"""

# ruff: noqa: RUF009 -- key() is dataclasses.field() with our metadata, not a shared mutable default

from __future__ import annotations

from dataclasses import dataclass, field

from agent.config.choices import (
    AttachWay,
    BufferKind,
    Level,
    LogFormat,
    RpcNames,
    UpdateMode,
)
from agent.config.exporting import Export, Metrics
from agent.config.header_names import HEADER_NAMES
from agent.config.key import key
from agent.config.selectors import RULES, SELECTORS, Rule, Sampler, Selector
from agent.config.values import (
    FLAG,
    HTTPS,
    PAIRS,
    SCHEDULE,
    TEXT,
    WORDS,
    Pairs,
    duration,
    fraction,
    one_of,
    size,
    whole,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """Which processes are traced, and how."""

    enabled: bool = key(True, FLAG, "False: attach to nothing (OTEL_SDK_DISABLED).")
    scan_interval: float = key(
        10.0,
        duration(at_least=0.1, at_most=3600),
        "How often /proc is read for what exec events didn't tell.",
    )
    include: tuple[Selector, ...] = key(
        (), SELECTORS, "Only processes that match one of these; empty: every Go process."
    )
    exclude: tuple[Selector, ...] = key((), SELECTORS, "Never processes that match one of these.")
    rules: tuple[Rule, ...] = key(
        (), RULES, "What is different for some processes; of the rules that match, the first one counts."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """How the kernel is used. The defaults find out what it can do."""

    buffer: BufferKind = key(
        BufferKind.AUTO, one_of(BufferKind), "Ring buffer (5.8 and later) or perf buffer.", restart=True
    )
    buffer_size: int = key(
        4 << 20,
        size(at_least=64 << 10, at_most=1 << 30),
        "Size of the event buffer; rounded up to a power of two.",
        restart=True,
    )
    attach: AttachWay = key(
        AttachWay.AUTO,
        one_of(AttachWay),
        "How probes are attached; auto tries them in this order.",
        restart=True,
    )
    drain_interval: float = key(
        0.1,
        duration(at_least=0.001, at_most=10),
        "How often records are fetched; earlier when the buffer fills.",
    )
    max_in_flight: int = key(
        3072,
        whole(at_least=64, at_most=1 << 22),
        "Spans that may be open at a time on the whole machine.",
        restart=True,
    )
    max_executables: int = key(
        256, whole(at_most=65536), "Executable files that may be traced at a time.", restart=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Libraries:
    """Which Go libraries are traced."""

    enabled: tuple[str, ...] = key((), WORDS, "Only these libraries; empty: all.")
    disabled: tuple[str, ...] = key((), WORDS, "Not these libraries.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """How the spans of several services become one trace. Writing needs a kernel that isn't locked down."""

    http1: bool = key(
        True, FLAG, "Write traceparent and tracestate into outgoing HTTP/1 requests.", restart=True
    )
    http2: bool = key(True, FLAG, "Write them into outgoing HTTP/2 requests.", restart=True)
    grpc: bool = key(True, FLAG, "Write them into outgoing gRPC calls.", restart=True)
    kafka: bool = key(
        True,
        FLAG,
        "Write traceparent into the headers of messages that kafka-go's Writers send.",
        restart=True,
    )
    connections: bool = key(
        True,
        FLAG,
        "Tie requests that carry none to their client by the connection, if both are traced on this machine.",
        restart=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets:
    """Where field offsets come from, besides the executable itself."""

    file: str = key(
        "",
        TEXT,
        "An offset table to use instead of the installed one; updates have no say then.",
        restart=True,
    )
    directory: str = key(
        "/var/lib/gospan-offsets", TEXT, "Where updates of the table are installed.", restart=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetsUpdate:
    """Keeping the offset table current; after a change of it run `gospan offsets schedule`."""

    mode: UpdateMode = key(
        UpdateMode.OFF,
        one_of(UpdateMode),
        "direct: over HTTPS from `url`; image: from a registry, as `image`.",
    )
    schedule: str = key(
        "",
        SCHEDULE,
        "When to look for a newer table: a cron expression (`0 0 * * *`) or a systemd calendar; empty: never.",
    )
    url: str = key("", HTTPS, "Where the table is; its signature is beside it, with .sig behind the name.")
    image: str = key(
        "", TEXT, "An image or artifact with the table, such as registry.example.com/gospan/offsets:latest."
    )
    ca_file: str = key(
        "",
        TEXT,
        "PEM file of the authorities to trust. Default: the systemd credential offsets-ca, else the system's.",
    )
    username: str = key("", TEXT, "Who we are to the registry, if it asks.")
    password_file: str = key(
        "", TEXT, "A file with our password. Default: the systemd credential offsets-password, if given."
    )
    docker_config: str = key(
        "",
        TEXT,
        "A docker config.json with what registries ask for. Default: the systemd credential offsets-docker-config,"
        " if given.",
    )
    public_key: str = key(
        "",
        TEXT,
        "PEM file of the public keys that sign tables. Default: the systemd credential offsets-public-key, else the"
        " keys that came with gospan.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is written about the agent's own doings."""

    level: Level = key(Level.INFO, one_of(Level, aliases={"warn": Level.WARNING}), "From which severity on.")
    format: LogFormat = key(
        LogFormat.AUTO,
        one_of(LogFormat),
        "auto: the journal under systemd, readable lines on a terminal, else JSON.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """What HTTP spans tell."""

    request_headers: tuple[str, ...] = key(
        (),
        HEADER_NAMES,
        "Headers of requests that spans of servers and clients have, as http.request.header.<name>.",
    )
    response_headers: tuple[str, ...] = key(
        (), HEADER_NAMES, "Headers of responses that they have, as http.response.header.<name>."
    )
    redact_headers: tuple[str, ...] = key(
        (),
        WORDS,
        "Globs of headers of which only REDACTED is told, besides Authorization, Cookie and others like them.",
    )
    redact_query: tuple[str, ...] = key(
        (),
        WORDS,
        "Query parameters whose values are replaced by REDACTED, besides those that OpenTelemetry's conventions name.",
        restart=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """What RPC spans tell."""

    names: RpcNames = key(
        RpcNames.CURRENT,
        one_of(RpcNames),
        "Attributes by the current conventions, by those up to 1.37 (rpc.system, rpc.grpc.status_code), or both.",
        restart=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sql:
    """What spans of SQL databases tell."""

    query_text: bool = key(
        True, FLAG, "Whether spans have the query's text, without the values in it.", restart=True
    )
    transactions: bool = key(
        True,
        FLAG,
        "Whether the beginning and the end of a transaction have spans of their own.",
        restart=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which traces are recorded; decided in the kernel where a trace begins."""

    name: Sampler = key(
        Sampler.PARENTBASED_ALWAYS_ON, one_of(Sampler), "The sampler, as OpenTelemetry names it."
    )
    arg: float = key(1.0, fraction(), "The share of traces for the two traceidratio samplers.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What is said of every traced process, unless its own environment says otherwise."""

    service_name: str = key(
        "", TEXT, "service.name of processes that don't set their own; empty: unit, then executable."
    )
    attributes: Pairs = key((), PAIRS, "Resource attributes added to every process's own.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the running agent shows of itself."""

    socket: str = key(
        "/run/gospan/gospan.sock",
        TEXT,
        "Where `gospan status` and the like ask; empty: nowhere.",
        restart=True,
    )
    recent_spans: int = key(
        1000, whole(at_least=0, at_most=100_000), "Finished spans kept in memory for `gospan spans`; 0: none."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, by section. The names here are the sections' names in the file, but for `_`, which is a dot."""

    export: Export = field(default_factory=Export)
    discovery: Discovery = field(default_factory=Discovery)
    kernel: Kernel = field(default_factory=Kernel)
    libraries: Libraries = field(default_factory=Libraries)
    propagation: Propagation = field(default_factory=Propagation)
    offsets: Offsets = field(default_factory=Offsets)
    offsets_update: OffsetsUpdate = field(default_factory=OffsetsUpdate)
    http: Http = field(default_factory=Http)
    rpc: Rpc = field(default_factory=Rpc)
    sql: Sql = field(default_factory=Sql)
    sampler: Sampling = field(default_factory=Sampling)
    resource: Resources = field(default_factory=Resources)
    metrics: Metrics = field(default_factory=Metrics)
    log: Log = field(default_factory=Log)
    status: Status = field(default_factory=Status)
