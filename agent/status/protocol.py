"""The status socket's protocol (docs/status.md): a JSON object a line, either way."""

from __future__ import annotations

from typing import Any, TypeAlias

SCHEMA = 1
"""The version of what is told; it changes where something is taken away or means something else."""

MAX_REQUEST = 4096
"""Bytes of a request's line."""

REPORT = "report"
"""{"want": "report"}: everything but spans, in one object."""

SPANS = "spans"
"""{"want": "spans", "last": 10, "follow": true}: spans that are kept, and those to come. Without `last` all that are
kept; with `since`, a number, those from there on."""

Json: TypeAlias = dict[str, Any]
