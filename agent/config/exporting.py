"""Where spans and the agent's own metrics go: the settings of [export] and [metrics]."""

# ruff: noqa: RUF009 -- key() is dataclasses.field() with our metadata, not a shared mutable default

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from agent.config.choices import (
    Compression,
    MetricsExporter,
    Protocol,
    Sink,
)
from agent.config.key import METADATA, key
from agent.config.values import (
    ENDPOINT,
    FLAG,
    HEADERS,
    OPTIONAL_ENDPOINT,
    TEXT,
    Kind,
    Pairs,
    PlacedError,
    duration,
    one_of,
    parse_tables,
    size,
    some_of,
    whole,
)

DEFAULT_ENDPOINT = "http://localhost:4317"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A collector, and how it is spoken to."""

    endpoint: str = key(
        DEFAULT_ENDPOINT,
        ENDPOINT,
        "The collector: http://, https:// (TLS) or unix:/path. By gRPC port 4317 if none is given.",
    )
    protocol: Protocol = key(
        Protocol.GRPC, one_of(Protocol), "OTLP's transport. By http/protobuf the default port is 4318."
    )
    path: str = key(
        "", TEXT, "By HTTP: the whole path of requests, where it isn't the endpoint's and /v1/traces."
    )
    insecure: bool = key(False, FLAG, "No TLS for an endpoint written without http:// or https://.")
    headers: Pairs = key((), HEADERS, "Headers sent with each request, such as an API key.", secret=True)
    headers_file: str = key(
        "",
        TEXT,
        "A file with a `name: value` header a line. Default: the systemd credential otlp-headers, if given.",
    )
    certificate: str = key("", TEXT, "PEM file of the authorities to trust. Default: the system's.")
    client_key: str = key("", TEXT, "PEM file of our private key, for mutual TLS.")
    client_certificate: str = key("", TEXT, "PEM file of our certificate chain, for mutual TLS.")
    compression: Compression = key(Compression.NONE, one_of(Compression), "Compression of requests.")
    timeout: float = key(10.0, duration(at_least=0.01, at_most=600), "How long one request may take.")


_DESTINATION_KINDS: dict[str, Kind[Any]] = {
    item.name: item.metadata[METADATA].kind for item in fields(Destination)
}


def _destinations_from_toml(value: object) -> tuple[Destination, ...]:
    example = '{ endpoint = "https://otel.example:4317" }'
    tables = parse_tables(value, _DESTINATION_KINDS, "destination", example)
    for number, table in enumerate(tables):
        if "endpoint" not in table:
            raise PlacedError((number,), f"destination {number + 1} has no endpoint; write {example}")
    return tuple(Destination(**table) for table in tables)


def _destination_to_toml(destination: Destination) -> str:
    cells = [
        f"{item.name} = {_DESTINATION_KINDS[item.name].to_toml(value)}"
        for item in fields(Destination)
        if (value := getattr(destination, item.name)) != item.default
    ]
    return "{ " + ", ".join(cells) + " }"


_DESTINATIONS: Kind[tuple[Destination, ...]] = Kind(
    name="list of destinations",
    from_toml=_destinations_from_toml,
    from_text=None,
    to_toml=lambda value: "[" + ", ".join(map(_destination_to_toml, value)) + "]",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export(Destination):
    """Where spans go, and how long they wait."""

    also: tuple[Destination, ...] = key(
        (),
        _DESTINATIONS,
        "Collectors that get every span as well, each with a queue of its own.",
        secret=True,
    )
    sink: Sink = key(
        Sink.OTLP,
        one_of(Sink),
        "Where spans go: to a collector, to standard output, or nowhere.",
        restart=True,
    )
    give_up_after: float = key(
        0.0, duration(), "How long a batch is tried again before it is dropped; 0: as long as it takes."
    )
    queue_size: int = key(
        32768,
        whole(at_most=10_000_000),
        "Spans that may wait (about 0.5 KiB each). When it is full, new ones are dropped.",
    )
    queue_bytes: int = key(
        32 << 20, size(at_least=1 << 20, at_most=1 << 34), "What the spans that wait may take, encoded."
    )
    batch_size: int = key(1024, whole(at_most=100_000), "Spans in one request, at most.")
    schedule_delay: float = key(
        1.0,
        duration(at_least=0.001, at_most=60),
        "How long a span waits for company before its batch is sent.",
    )

    def each(self) -> tuple[Export, ...]:
        """Give the settings of every destination by itself, the first one first."""
        names = [item.name for item in fields(Destination)]
        others = [replace(self, also=(), **{name: getattr(one, name) for name in names}) for one in self.also]
        return (replace(self, also=()), *others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics(Destination):
    """The agent's own metrics. What is left out is as in [export], unless there is an endpoint of their own."""

    exporters: tuple[MetricsExporter, ...] = key(
        (MetricsExporter.OTLP,),
        some_of(MetricsExporter),
        "Where they go: to a collector, to whoever asks at the Prometheus port; empty: nowhere.",
    )
    endpoint: str = key("", OPTIONAL_ENDPOINT, "A collector for metrics. Default: that of [export].")
    interval: float = key(60.0, duration(at_least=0.1, at_most=86400), "How often they are sent.")
    prometheus_host: str = key("localhost", TEXT, "Where the Prometheus endpoint listens.")
    prometheus_port: int = key(9464, whole(at_least=0, at_most=65535), "Its port; 0: any that is free.")
    bpf_statistics: bool = key(
        False, FLAG, "Have the kernel count runs and time of BPF programs, which costs each run some 20 ns."
    )
