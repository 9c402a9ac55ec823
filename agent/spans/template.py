"""What the encoders of all libraries have in common: attributes, and caches of what repeats from span to span."""

from __future__ import annotations

from typing import TypeVar

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.spans.records import FLAGS_LOCAL_PARENT, FLAGS_REMOTE_PARENT, RECORD_REMOTE_PARENT

_T = TypeVar("_T")

_CACHED = 8192
"""Entries in each cache. A full one is emptied, which costs less than keeping an order."""

_NO_PARENT = bytes(8)

HEADER = ("flags", "start", "end", "trace_id", "span_id", "parent_id")
"""The members of struct record_header that `fill` takes."""


def set_attribute(span: Span, name: str, value: str | int) -> None:
    """Add an attribute."""
    attribute = span.attributes.add(key=name)
    if isinstance(value, str):
        attribute.value.string_value = value
    else:
        attribute.value.int_value = value


def remember(cache: dict[bytes, _T], key: bytes, value: _T) -> None:
    """Put something into a cache."""
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value


def fill(
    span: Span,
    clock: int,
    flags: int,
    start: int,
    end: int,
    trace_id: bytes,
    span_id: bytes,
    parent_id: bytes,
) -> None:
    """Set what a record's header tells; `clock` ns are added to its times to make them Unix time."""
    span.trace_id = trace_id
    span.span_id = span_id
    span.parent_span_id = parent_id if parent_id != _NO_PARENT else b""
    span.flags = FLAGS_REMOTE_PARENT if flags & RECORD_REMOTE_PARENT else FLAGS_LOCAL_PARENT
    span.start_time_unix_nano = start + clock
    span.end_time_unix_nano = end + clock
