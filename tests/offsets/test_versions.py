from __future__ import annotations

import pytest

from agent.offsets.versions import (
    by_minor,
    ends_first,
    go_release,
    minor,
    neighbours,
    order,
    release,
    without_gaps,
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1.20", (1, 20, 0)),
        ("go1.20", (1, 20, 0)),
        ("go1.22.5", (1, 22, 5)),
        ("v0.33.0", (0, 33, 0)),
        ("v1.43.1", (1, 43, 1)),
        ("v2.0.1+incompatible", (2, 0, 1)),
    ],
)
def test_a_release_is_its_numbers(text: str, numbers: tuple[int, int, int]) -> None:
    assert release(text) == numbers
    assert minor(text) == numbers[:2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(devel)",
        "devel go1.28-abcdef",
        "1.27rc1",
        "1.18beta1",
        "1",
        "v1",
        "go1.24.3 X:noswissmap",
        "go1.21.13 (Red Hat 1.21.13-1.el9)",
        "v0.0.0-20220101000000-abcdefabcdef",
        "v0.62.1-0.20260101000000-abcdefabcdef",
        "v1.2.3-rc.1",
        "v1.2.3+dirty",
        "v1.2.3.4",
        "1.999999.0",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert release(text) is None
    assert minor(text) is None
    assert neighbours(text, ["1.27.0", "v0.62.0", "v1.2.3"]) == []


def test_releases_are_sorted_as_numbers() -> None:
    assert sorted(["1.20.10", "1.20.9", "1.3", "1.20"], key=order) == ["1.3", "1.20", "1.20.9", "1.20.10"]


def test_go_writes_three_numbers_since_1_21() -> None:
    assert [go_release(one) for one in ((1, 20, 0), (1, 20, 1), (1, 21, 0))] == ["1.20", "1.20.1", "1.21.0"]


def test_patches_have_no_gaps() -> None:
    assert without_gaps(["1.20.2", "1.21.1", "1.21rc2"]) == ["1.20", "1.20.1", "1.20.2", "1.21.0", "1.21.1"]


def test_the_ends_of_the_newest_minor_version_go_first() -> None:
    versions = ["1.20", "1.20.1", "1.20.2", "1.21.0", "1.9.5"]
    assert by_minor(versions) == {
        (1, 9): ["1.9.5"],
        (1, 20): ["1.20", "1.20.1", "1.20.2"],
        (1, 21): ["1.21.0"],
    }
    assert ends_first(versions) == ["1.21.0", "1.20.2", "1.20", "1.9.5", "1.20.1"]


@pytest.mark.parametrize(
    ("version", "near"),
    [
        ("1.22.3", ["1.22.1", "1.22.6"]),
        ("1.22.9", ["1.22.6"]),
        ("1.22.0", ["1.22.1"]),
        ("1.22.6", ["1.22.1"]),
        ("1.23.0", []),
        ("1.20.13", []),
    ],
)
def test_neighbours_are_patches_of_the_same_minor_version(version: str, near: list[str]) -> None:
    assert neighbours(version, ["1.21.0", "1.22.1", "1.22.6", "1.24.0"]) == near
