"""A trace as a tree: who called whom, as far as it was seen here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from agent.status.shown import ShownSpan


@dataclass(frozen=True, slots=True)
class Node:
    """A span with its place in the tree: `depth` from 0, and whether its parent is missing here."""

    span: ShownSpan
    depth: int
    orphan: bool


def tree(spans: Iterable[ShownSpan]) -> list[Node]:
    """Order the spans of a trace as a tree: each behind its parent, siblings by their start.

    Every span is in it once, even where parents go in circles, as hostile ids may.
    """
    by_id: dict[str, ShownSpan] = {}
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        by_id.setdefault(span.span_id, span)
    children: dict[str, list[ShownSpan]] = defaultdict(list)
    roots = []
    for span in by_id.values():
        if span.parent_id in by_id and span.parent_id != span.span_id:
            children[span.parent_id].append(span)
        else:
            roots.append(span)
    found: dict[str, Node] = {}
    for root in [*roots, *by_id.values()]:  # of a circle no span is a root
        waiting = [Node(root, 0, bool(root.parent_id))]
        while waiting:
            node = waiting.pop()
            if node.span.span_id not in found:
                found[node.span.span_id] = node
                below = reversed(children[node.span.span_id])
                waiting += [Node(child, node.depth + 1, False) for child in below]
    return list(found.values())
