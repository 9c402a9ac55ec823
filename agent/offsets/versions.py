"""Released versions of Go and of modules: their order, and which of them are patches of the same minor version."""

from __future__ import annotations

import re
from collections.abc import Iterable

STANDARD_LIBRARY = "std"
"""The module that comes with Go itself and has its version."""

Release = tuple[int, int, int]
"""Major, minor and patch."""

_RELEASE = re.compile(r"(?:go|v)?(\d{1,5})\.(\d{1,5})(?:\.(\d{1,5}))?(?:\+incompatible)?")

_THREE_NUMBERS_SINCE = (1, 21)
"""Go's first release of a minor version is written 1.20 up to here, and 1.21.0 from here on (go.dev/doc/toolchain)."""


def release(version: str) -> Release | None:
    """The numbers of a released version such as `1.20`, `go1.22.5` or `v0.33.0`.

    None for what is no release: release candidates, pseudo-versions, `(devel)`, a toolchain with experiments.
    """
    match = _RELEASE.fullmatch(version)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def order(version: str) -> tuple[Release, str]:
    """The key by which released versions are sorted."""
    return release(version) or (0, 0, 0), version


def minor(version: str) -> tuple[int, int] | None:
    """The first two numbers of a released version."""
    numbers = release(version)
    return numbers[:2] if numbers else None


def go_release(numbers: Release) -> str:
    """What Go calls a release, without `go`: `1.20`, `1.20.1`, `1.21.0`."""
    major, middle, patch = numbers
    if not patch and (major, middle) < _THREE_NUMBERS_SINCE:
        return f"{major}.{middle}"
    return f"{major}.{middle}.{patch}"


def without_gaps(known: Iterable[str]) -> list[str]:
    """The Go releases that exist if those in `known` do: Go numbers the patches of a minor version without gaps."""
    newest: dict[tuple[int, int], int] = {}
    for version in known:
        numbers = release(version)
        if numbers:
            newest[numbers[:2]] = max(newest.get(numbers[:2], 0), numbers[2])
    return [go_release((*pair, patch)) for pair, last in sorted(newest.items()) for patch in range(last + 1)]


def by_minor(versions: Iterable[str]) -> dict[tuple[int, int], list[str]]:
    """The patches of each minor version, all from old to new."""
    series: dict[tuple[int, int], list[str]] = {}
    for version in sorted(versions, key=order):
        series.setdefault(order(version)[0][:2], []).append(version)
    return series


def ends_first(versions: Iterable[str]) -> list[str]:
    """The last and the first patch of each minor version, newest minor version first; then the rest, in that order."""
    series = [patches[::-1] for patches in by_minor(versions).values()][::-1]
    ends = [version for patches in series for version in dict.fromkeys((patches[0], patches[-1]))]
    return ends + [version for patches in series for version in patches[1:-1]]


def neighbours(version: str, known: Iterable[str]) -> list[str]:
    """The nearest patches before and after `version` in its minor version; none of another one, ever."""
    wanted = release(version)
    if wanted is None:
        return []
    same = [one for one in known if minor(one) == wanted[:2] and one != version]
    before = max((one for one in same if order(one)[0] < wanted), key=order, default=None)
    after = min((one for one in same if order(one)[0] > wanted), key=order, default=None)
    return [one for one in (before, after) if one is not None]
