"""What became of trace context between services: where it goes, and what was counted of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.config import Propagation
from agent.kernel.features import Feature
from agent.wording import listing

_SKIPPED = ("own_header", "no_room", "shared_header", "unknown_request", "compressed", "write_failed")
"""Why requests went out without what gospan would have written (enum counter, bpf/counters.h)."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """Outgoing requests that trace context was written into, incoming ones that were joined to their client by the
    connection, and outgoing ones that were not tied to a span of gospan's, by reason.
    """

    written: int
    joined: int
    skipped: Mapping[str, int]


def contexts(counters: Mapping[str, int]) -> Contexts:
    """Give what was counted in the kernel since the start; reasons without a case are left out."""
    skipped = {reason: counters[f"contexts_{reason}"] for reason in _SKIPPED}
    return Contexts(
        counters["contexts_written"],
        counters["contexts_joined"],
        {reason: count for reason, count in skipped.items() if count},
    )


def where(settings: Propagation, writing: Feature) -> str:
    """Say in one sentence where trace context goes. `writing` is whether the kernel lets it be written."""
    joined = (
        "requests between traced processes of this machine are joined by their connections"
        if settings.connections
        else "no requests are joined by their connections either, as configured"
    )
    if not writing:
        return f"{writing.sentence.rstrip('.')}; {joined}."
    wanted = [name for name, on in (("HTTP/1", settings.http1), ("HTTP/2", settings.http2)) if on]
    into = [f"outgoing {' and '.join(wanted)} requests"] if wanted else []
    if settings.grpc:
        into.append("outgoing gRPC calls")
    if settings.kafka:
        into.append("messages to Kafka")
    if not into:
        return f"Nothing is written into outgoing requests, as configured; {joined}."
    return f"Trace context is written into {listing(into)}; where it is not, {joined}."
