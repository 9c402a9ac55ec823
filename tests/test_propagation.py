"""What is said of trace context between services."""

from __future__ import annotations

import pytest

from agent.config import Propagation
from agent.kernel.features import Feature
from agent.propagation import contexts, where

LOCKED = Feature(False, "Trace context can't be written into outgoing requests, the kernel is locked down.")
WRITES = Feature(True, "Trace context can be written into outgoing requests.")


@pytest.mark.parametrize(
    ("settings", "writing", "said"),
    [
        (
            Propagation(),
            LOCKED,
            (
                "Trace context can't be written into outgoing requests, the kernel is locked down; requests between "
                "traced processes of this machine are joined by their connections."
            ),
        ),
        (
            Propagation(),
            WRITES,
            (
                "Trace context is written into outgoing HTTP/1 and HTTP/2 requests, outgoing gRPC calls and messages "
                "to Kafka; where it is not, requests between traced processes of this machine are joined by their "
                "connections."
            ),
        ),
        (
            Propagation(grpc=False, kafka=False, connections=False),
            WRITES,
            (
                "Trace context is written into outgoing HTTP/1 and HTTP/2 requests; where it is not, no requests are "
                "joined by their connections either, as configured."
            ),
        ),
        (
            Propagation(http2=False, kafka=False),
            WRITES,
            (
                "Trace context is written into outgoing HTTP/1 requests and outgoing gRPC calls; where it is not, "
                "requests between traced processes of this machine are joined by their connections."
            ),
        ),
        (
            Propagation(http2=False, grpc=False),
            WRITES,
            (
                "Trace context is written into outgoing HTTP/1 requests and messages to Kafka; where it is not, "
                "requests between traced processes of this machine are joined by their connections."
            ),
        ),
        (
            Propagation(http1=False, http2=False, grpc=False, kafka=False),
            WRITES,
            (
                "Nothing is written into outgoing requests, as configured; requests between traced processes of this "
                "machine are joined by their connections."
            ),
        ),
    ],
)
def test_one_sentence_says_where_context_goes(settings: Propagation, writing: Feature, said: str) -> None:
    assert where(settings, writing) == said


def test_what_was_skipped_is_told_by_reason() -> None:
    reasons = ("own_header", "no_room", "shared_header", "unknown_request", "compressed", "write_failed")
    counters = dict.fromkeys((*reasons, "written", "joined"), 0)
    counters |= {"no_room": 3, "written": 7, "joined": 2}
    found = contexts({f"contexts_{name}": count for name, count in counters.items()})
    assert (found.written, found.joined, found.skipped) == (7, 2, {"no_room": 3})
