"""Type information first, the table second, and nothing third."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from agent.executable import BuildInfo, Executable
from agent.offsets.compact import compact
from agent.offsets.resolve import Resolution, Resolver, Source
from agent.offsets.table import Listed, Table
from tests.support import golang
from tests.support.golang import NEWEST

ABSENT = "net/http.Absent.field"
HEADER = "net/http.Header:group_size"


def table(*versions: str, fields: dict[str, int]) -> Table:
    module = compact("std", versions, amd64=dict.fromkeys(versions, fields), arm64={}, unavailable={})
    return Table(datetime(2026, 1, 1, tzinfo=timezone.utc), {"std": module})


@pytest.fixture(scope="module")
def executable() -> Executable:
    return Executable(str(golang.build("http_server", go=NEWEST)))


def test_type_information_goes_first(executable: Executable) -> None:
    wrong = table(NEWEST, fields={"net/http.Request.RequestURI": 999})
    resolution = Resolver(wrong).resolve(executable, fields=["net/http.Request.RequestURI"])
    assert resolution.offsets == {"net/http.Request.RequestURI": (192, Source.TYPE_INFORMATION)}


def test_the_table_is_not_asked_where_nothing_is_missing(executable: Executable) -> None:
    class Silent:
        def find(self, name: str, build_info: BuildInfo, arch: str) -> Listed | None:
            raise AssertionError(f"asked for {name} of {build_info.go_version} {arch}")

    resolution = Resolver(Silent()).resolve(
        executable, fields=["net/http.Request.Method"], maps=["net/http.Header"]
    )
    assert resolution.maps["net/http.Header"].group_size == 328


def test_the_exact_version_of_the_table_is_second(executable: Executable) -> None:
    resolution = Resolver(table(NEWEST, fields={ABSENT: 24})).resolve(executable, fields=[ABSENT])
    assert resolution.offsets == {ABSENT: (24, Source.TABLE)}
    assert resolution.writable(ABSENT) == 24


def test_neighbours_are_third_and_never_for_writing(executable: Executable) -> None:
    resolution = Resolver(table("1.27.0", "1.27.9", fields={ABSENT: 24})).resolve(executable, fields=[ABSENT])
    assert resolution.offsets == {ABSENT: (24, Source.NEIGHBOUR)}
    assert resolution.writable(ABSENT) is None
    assert [one.exact for one in Source] == [True, True, False]


def test_a_struct_that_is_described_is_not_looked_up(executable: Executable) -> None:
    """A program that was built from changed sources has the version of the original, and its own fields."""
    name = "net/http.Request.Absent"
    assert Resolver(table(NEWEST, fields={name: 24})).resolve(executable, fields=[name]) == Resolution({}, {})


def test_another_minor_version_is_no_source(executable: Executable) -> None:
    other = table("1.26.0", "1.28.0", fields={ABSENT: 24})
    assert Resolver(other).resolve(executable, fields=[ABSENT]) == Resolution({}, {})


def test_without_a_table_it_is_off(executable: Executable) -> None:
    assert Resolver().resolve(executable, fields=[ABSENT], maps=["net/http.Absent"]) == Resolution({}, {})


def test_a_map_without_descriptor_is_looked_up_part_by_part(executable: Executable) -> None:
    known = table(NEWEST, fields={"net/http.Absent:group_size": 328, "net/http.Absent:key_offset": 8})
    resolution = Resolver(known).resolve(executable, fields=[], maps=["net/http.Absent"])
    assert resolution.maps == {}
    assert resolution.offsets == {
        "net/http.Absent:group_size": (328, Source.TABLE),
        "net/http.Absent:key_offset": (8, Source.TABLE),
    }


def test_a_field_that_nobody_asked_for_is_not_writable() -> None:
    assert Resolution({}, {}).writable(ABSENT) is None
