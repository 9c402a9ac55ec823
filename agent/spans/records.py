"""From records to encoded spans: what all libraries' records have in common.

A record is a fixed header (bpf/record.h), the library's struct and its texts. Each kind of record has an encoder that
its library makes from the struct's format, as the object's BTF gives it; nothing is declared twice.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

from agent.kernel.formats import Format

RECORD_REMOTE_PARENT = 1 << 0
RECORD_UNFINISHED = 1 << 1
"""enum record_flags (bpf/record.h)."""

TEXT_CUT = 0x8000
"""Added to a text's length where the string was longer than the record had room for (bpf/record.h)."""

FLAGS_LOCAL_PARENT = 0x101
FLAGS_REMOTE_PARENT = 0x301
"""Span.flags of OTLP: sampled, and whether the parent is known to be remote (opentelemetry/proto/trace/v1/trace.proto,
SpanFlags: 0x1 of the W3C flags, 0x100 HAS_IS_REMOTE, 0x200 IS_REMOTE)."""

Encoder: TypeAlias = Callable[[bytes, int], bytes]
"""Makes an encoded span from a record and the offset in ns that turns its times into Unix time."""

EncoderFactory: TypeAlias = Callable[[Format], Encoder]
"""Makes the encoder of one kind of record from the format of its struct."""

KIND_SIZE = 2
PROCESS = slice(16, 24)
"""Where struct record_header has the kind (at its beginning) and the process; numbers are little-endian."""

_HEADER = struct.Struct("<HHIIIQQ")
"""The beginning of struct record_header: kind, length, tgid, slot, flags, process, start."""


def record_kind(record: bytes) -> int:
    """The number that the agent gave to the record's struct."""
    return record[0] | record[1] << 8


def record_tgid(record: bytes) -> int:
    """The process that the record is from, as the agent's pid namespace numbers it."""
    tgid: int = _HEADER.unpack_from(record)[2]
    return tgid


def record_process(record: bytes) -> int:
    """The process that the record is from, by a number that does not come again: struct process.id (bpf/process.h)."""
    process: int = _HEADER.unpack_from(record)[5]
    return process


def record_start(record: bytes) -> int:
    """When what the record tells of began: CLOCK_MONOTONIC, ns."""
    start: int = _HEADER.unpack_from(record)[6]
    return start
