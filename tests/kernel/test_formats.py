from __future__ import annotations

import pytest

from agent.kernel import btf
from agent.kernel.btf import Array, BtfError, Integer, Member, Struct
from agent.kernel.formats import Value, format_of


def test_layout_of_a_compiled_object(probes: str) -> None:
    layout = btf.read(probes).struct("layout")
    found = format_of(layout)

    assert found.names == (
        "method", "url", "places[0].column", "places[0].line", "places[1].column", "places[1].line",
        "name", "outcome", "delta", "inner", "either", "flag",
    )  # fmt: skip
    assert found.size == layout.size
    assert found.fields[0].tags == ("go:net/http.Request.Method",)
    assert found.fields[0].offset == 0
    assert found.fields[1].offset == 8
    values: dict[str, Value] = dict.fromkeys(found.names, 1)
    values |= {"name": b"GET", "either": b"\1\2\3\4", "flag": True, "delta": -3}
    packed = found.pack(values)
    assert found.unpack(packed) == values | {"name": b"GET\0\0"}
    assert packed[2:8] == bytes(6)  # padding after method


def test_missing_fields_are_filled(probes: str) -> None:
    found = format_of(btf.read(probes).struct("layout"))
    values = found.unpack(found.pack({"url": 16}, missing=-1))
    assert values["url"] == 16
    assert values["method"] == 0xFFFF
    assert values["delta"] == -1
    assert values["name"] == b"\xff" * 5
    assert found.pack({}) == bytes(found.size)


def test_record_with_a_flexible_end(probes: str) -> None:
    found = format_of(btf.read(probes).struct("record"))
    assert found.names == ("number", "cookie", "tgid", "length")
    assert found.size == 24
    assert found.packer.unpack_from(b"\1" + bytes(22) + b"\1tail")[0] == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"methid": 1}, "struct layout has no member methid"),
        ({"method": 65536}, "layout.method takes 2 bytes, 65536 does not fit"),
        ({"method": -1}, "layout.method takes 2 bytes"),
        ({"name": b"too long"}, "layout.name takes at most 5 bytes"),
        ({"name": 3}, "layout.name takes at most 5 bytes"),
    ],
)
def test_values_that_do_not_fit(probes: str, values: dict[str, int | bytes], reason: str) -> None:
    with pytest.raises(BtfError, match=reason):
        format_of(btf.read(probes).struct("layout")).pack(values)


def test_shapes_without_a_format() -> None:
    wide = Struct("wide", 16, (Member("number", 0, Integer("__int128", 16)),))
    with pytest.raises(BtfError, match="number has 16 bytes"):
        format_of(wide)
    overlapping = Struct("odd", 8, (Member("a", 0, Integer("int", 4)), Member("b", 2, Integer("int", 4))))
    with pytest.raises(BtfError, match="overlap at b"):
        format_of(overlapping)


def test_floats_and_arrays_of_numbers() -> None:
    kind = Struct(
        "mixed",
        24,
        (Member("x", 0, Integer("double", 8)), Member("n", 8, Array(Integer("long", 8, True), 2))),
    )
    found = format_of(kind)
    assert found.names == ("x", "n[0]", "n[1]")
    assert found.unpack(found.pack({"x": 1.5, "n[1]": -2})) == {"x": 1.5, "n[0]": 0, "n[1]": -2}
