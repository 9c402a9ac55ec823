"""What the encoders of all libraries have in common: attributes, and caches of what repeats from span to span."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TypeVar

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.spans.http import text_of
from agent.spans.records import FLAGS_LOCAL_PARENT, FLAGS_REMOTE_PARENT, RECORD_REMOTE_PARENT, TEXT_CUT

_K = TypeVar("_K")
_T = TypeVar("_T")

_CACHED = 8192
"""Entries in each cache. A full one is emptied, which costs less than keeping an order."""

_NO_PARENT = bytes(8)

# The fields of a span that a record's header tells are as long in every one: they are packed, tags and all, which takes
# a fifth of the time that setting them in a message does. Tags: opentelemetry/proto/trace/v1/trace.proto.
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_START, _END, _FLAGS = b"\x39", b"\x41", b"\x85\x01"
_ROOT = struct.Struct("<2s16s2s8s2sIsQsQ").pack
_CHILD = struct.Struct("<2s16s2s8s2sIsQsQ2s8s").pack

HEADER = ("flags", "start", "end", "trace_id", "span_id", "parent_id")
"""The members of struct record_header that `encode_header` takes."""


def set_attribute(span: Span, name: str, value: str | int) -> None:
    """Add an attribute."""
    attribute = span.attributes.add(key=name)
    if isinstance(value, str):
        attribute.value.string_value = value
    else:
        attribute.value.int_value = value


def encode_attributes(attributes: Mapping[str, str | int]) -> bytes:
    """Encode attributes as a part of a span."""
    span = Span()
    for name, value in attributes.items():
        set_attribute(span, name, value)
    return span.SerializeToString()


def encode_header(
    clock: int, flags: int, start: int, end: int, trace_id: bytes, span_id: bytes, parent_id: bytes
) -> bytes:
    """Encode what a record's header tells, as a part of a span; `clock` ns make its times Unix time."""
    span_flags = FLAGS_REMOTE_PARENT if flags & RECORD_REMOTE_PARENT else FLAGS_LOCAL_PARENT
    start += clock
    end += clock
    if parent_id == _NO_PARENT:
        return _ROOT(_TRACE_ID, trace_id, _SPAN_ID, span_id, _FLAGS, span_flags, _START, start, _END, end)
    return _CHILD(
        _TRACE_ID,
        trace_id,
        _SPAN_ID,
        span_id,
        _FLAGS,
        span_flags,
        _START,
        start,
        _END,
        end,
        _PARENT_ID,
        parent_id,
    )


def remember(cache: dict[_K, _T], key: _K, value: _T) -> None:
    """Put something into a cache."""
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value


class TraceStates:
    """Encodes tracestates as parts of spans. Not for several threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, int], bytes] = {}

    def encode(self, record: bytes, at: int, length: int) -> bytes:
        """Encode the text of a record at `at`; `length` as it is there, with TEXT_CUT, or 0.

        Where it was cut, the member that is not whole goes (W3C Trace Context, 3.3.1.5).
        """
        if not length:
            return b""
        raw = record[at : at + (length & ~TEXT_CUT)]
        state = self._known.get((raw, length))
        if state is None:
            text = text_of(raw)
            whole = text.rpartition(",")[0] if length & TEXT_CUT else text
            state = Span(trace_state=whole).SerializeToString()
            remember(self._known, (raw, length), state)
        return state
