from __future__ import annotations

from agent.offsets.compact import compact
from agent.offsets.table import Range

VERSIONS = ["1.1", "1.2", "1.3", "1.4"]


def offsets(*values: int | None) -> dict[str, dict[str, int]]:
    return {
        version: {} if value is None else {"p.T.f": value}
        for version, value in zip(VERSIONS, values, strict=True)
    }


def ranges(amd64: dict[str, dict[str, int]], arm64: dict[str, dict[str, int]]) -> tuple[Range, ...]:
    module = compact("m", VERSIONS, amd64=amd64, arm64=arm64, unavailable={})
    assert set(module.arm64) == set(arm64)
    return module.fields["p.T.f"]


def test_equal_offsets_are_one_range() -> None:
    assert ranges(offsets(8, 8, 8, 8), {}) == (Range("1.1", "1.4", 8),)


def test_a_change_begins_a_range_and_an_absence_ends_one() -> None:
    assert ranges(offsets(8, None, 8, 16), {}) == (
        Range("1.1", "1.1", 8),
        Range("1.3", "1.3", 8),
        Range("1.4", "1.4", 16),
    )


def test_offset_zero_is_an_offset() -> None:
    assert ranges(offsets(None, 0, 0, None), {}) == (Range("1.2", "1.3", 0),)


def test_architectures_that_agree_share_ranges() -> None:
    assert ranges(offsets(8, 8, 8, 8), {"1.1": {"p.T.f": 8}, "1.4": {"p.T.f": 8}}) == (
        Range("1.1", "1.4", 8),
    )


def test_architectures_that_differ_are_told_apart_and_nothing_is_concluded() -> None:
    arm64 = {"1.1": {"p.T.f": 8}, "1.3": {"p.T.f": 12}, "1.4": {"p.T.f": 12}}
    assert ranges(offsets(8, 8, 8, 8), arm64) == (
        Range("1.1", "1.4", 8, "amd64"),
        Range("1.1", "1.1", 8, "arm64"),
        Range("1.3", "1.4", 12, "arm64"),
    )


def test_a_field_of_one_architecture_only() -> None:
    assert ranges(offsets(8, 8, 8, 8), {"1.4": {}}) == (Range("1.1", "1.4", 8, "amd64"),)


def test_every_version_gets_back_what_was_put_in() -> None:
    amd64 = offsets(8, None, 16, 16)
    arm64 = {"1.3": {"p.T.f": 24}}
    module = compact("m", VERSIONS, amd64=amd64, arm64=arm64, unavailable={"1.5": "why"})
    for version in VERSIONS:
        assert module.offset("p.T.f", version, "amd64") == amd64[version].get("p.T.f")
        assert module.offset("p.T.f", version, "arm64") == arm64.get(version, {}).get("p.T.f")
    assert module.offset("p.T.f", "1.5", "amd64") is None
    assert module.offset("p.T.g", "1.1", "amd64") is None
