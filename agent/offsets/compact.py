"""From offsets by version to ranges of versions, as the table has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.offsets.table import Module, Range

Offsets = Mapping[str, Mapping[str, int]]
"""Offsets in bytes, by version and field."""


def compact(
    path: str,
    versions: Sequence[str],
    *,
    amd64: Offsets,
    arm64: Offsets,
    unavailable: Mapping[str, str],
) -> Module:
    """Make a module's part of the table. `versions`, oldest first, are all those of `amd64`; `arm64` has some of them.

    A field's ranges are for both architectures where the two agree in every version that was built for both; else they
    are told apart.
    """
    names = sorted({name for offsets in (*amd64.values(), *arm64.values()) for name in offsets})
    fields = {}
    for name in names:
        if all(amd64[version].get(name) == offsets.get(name) for version, offsets in arm64.items()):
            fields[name] = tuple(_ranges(name, versions, amd64, ""))
        else:
            fields[name] = (
                *_ranges(name, versions, amd64, "amd64"),
                *_ranges(name, versions, arm64, "arm64"),
            )
    position = {version: number for number, version in enumerate(versions)}
    built_for_arm64 = tuple(version for version in versions if version in arm64)
    return Module(path, tuple(versions), built_for_arm64, unavailable, fields, position)


def _ranges(name: str, versions: Sequence[str], offsets: Offsets, arch: str) -> Iterator[Range]:
    first = last = ""
    current: int | None = None
    for version in versions:
        offset = offsets.get(version, {}).get(name)
        if offset != current:
            if current is not None:
                yield Range(first, last, current, arch)
            first, current = version, offset
        last = version
    if current is not None:
        yield Range(first, last, current, arch)
