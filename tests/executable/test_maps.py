"""Geometry of Swiss maps, against the sizes of their keys and elements (internal/runtime/maps: group.go)."""

from pathlib import Path

import pytest

from agent.executable import Executable, MapGeometry
from tests.support import golang
from tests.support.golang import VERSIONS

SWISS = [go for go in VERSIONS if int(go.split(".")[1]) >= 24]


@pytest.mark.parametrize("go", SWISS)
def test_geometry(go: str) -> None:
    with Executable(str(golang.build("allstd", go=go))) as executable:
        header = executable.map_geometry("net/http.Header")
        table = executable.map_geometry("main.Table")
        seen = executable.map_geometry("main.Seen")
        assert executable.map_geometry("net/http.Nonsense") is None
        assert executable.map_geometry("net/http.Request") is None
        assert executable.map_geometry("Header") is None
    # Eight slots of a string and a slice; of two pointers, as both are too large; of a uint16 and a bool.
    assert header == MapGeometry(8 + 8 * 40, 8, 8, 40, 8 + 16, 40)
    assert table == MapGeometry(8 + 8 * 16, 8, 8, 16, 8 + 8, 16)
    assert seen == MapGeometry(8 + 8 * 4, 8, 8, 4, 8 + 2, 4)


MAPS = """package main

type Header map[string][]string
type Seen map[uint16]bool

var maps = []any{Header{}, Seen{}}

func main() { println(maps[0], maps[1]) }
"""


@pytest.mark.parametrize("experiment", ["mapsplitgroup", "nomapsplitgroup"])
def test_geometry_of_split_groups(experiment: str, tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module example.com/maps\ngo 1.24\n")
    (tmp_path / "main.go").write_text(MAPS)
    with Executable(str(golang.build(tmp_path, go="1.27.4", experiment=experiment))) as executable:
        geometries = executable.map_geometry("main.Header"), executable.map_geometry("main.Seen")
    assert geometries == (
        (MapGeometry(328, 8, 8, 16, 8 + 8 * 16, 24), MapGeometry(32, 8, 8, 2, 24, 1))
        if experiment == "mapsplitgroup"
        else (MapGeometry(328, 8, 8, 40, 24, 40), MapGeometry(40, 8, 8, 4, 10, 4))
    )


@pytest.mark.parametrize("go", [go for go in VERSIONS if go not in SWISS])
def test_older_maps_have_none(go: str) -> None:
    with Executable(str(golang.build("allstd", go=go))) as executable:
        assert executable.map_geometry("net/http.Header") is None


@pytest.mark.parametrize("go", [VERSIONS[0], SWISS[0], VERSIONS[-1]])
def test_where_types_are_described(go: str) -> None:
    """A map type and a struct type; their names stand where they are said to be described."""
    names = {"net/http.Header", "net/http.Request", "net/http.Nonsense", "Header"}
    with Executable(str(golang.build("allstd", go=go))) as executable:
        found = executable.type_distances(names)
        first = executable._tables[1].types
        assert {name: executable.type_name(first + at) for name, at in found.items()} == {
            name: name for name in ("net/http.Header", "net/http.Request")
        }
