"""Every struct type the reader finds, against the DWARF of the same program's twin with symbols."""

import pytest

from agent.executable import Executable, Struct, field_offset, types_of
from agent.executable.structs import candidates_of, split_type
from tests.executable import truth
from tests.support import golang
from tests.support.golang import NEWEST, VERSIONS


def layout(struct: Struct) -> truth.Layout:
    return struct.size, tuple((field.name, field.offset, field.size) for field in struct.fields.values())


def assert_all_true(found: list[Struct], dwarf: dict[str, set[truth.Layout]], *, at_least: int) -> None:
    """Each struct is as DWARF says. The compiler leaves out of DWARF what no variable has; that is a handful."""
    wrong = [
        f"{s.name}: {layout(s)}, DWARF: {dwarf[s.name]}"
        for s in found
        if layout(s) not in dwarf.get(s.name, {layout(s)})
    ]
    assert wrong == []
    assert len(found) >= at_least
    unknown = [struct.name for struct in found if struct.name not in dwarf]
    assert len(unknown) <= 30, unknown


@pytest.mark.parametrize("go", VERSIONS)
def test_every_struct_of_the_standard_library(go: str) -> None:
    twin = golang.build("allstd", go=go, mode="plain")
    with Executable(str(golang.build("allstd", go=go, mode="strip"))) as executable:
        found = executable.all_structs()
        assert executable.known_layout
    assert_all_true(found, truth.structs(twin), at_least=1000)
    names = {struct.name for struct in found}
    assert {"net/http.Request", "runtime.g", "main.Nested", "example.com/allstd/dotted.v3.Node"} <= names


@pytest.mark.parametrize("go", VERSIONS)
def test_wanted_structs_are_those_of_the_whole_list(go: str) -> None:
    with Executable(str(golang.build("allstd", go=go))) as executable:
        every: dict[str, list[Struct]] = {}
        for struct in executable.all_structs():
            every.setdefault(struct.name, []).append(struct)
        wanted = executable.structs([*every, "net/http.Nonsense", "nonsense.Request", "Request"])
    assert "main.local" not in wanted  # two functions declare it, with different offsets
    assert wanted == {name: structs[0] for name, structs in every.items() if name != "main.local"}


PATHS = {
    "example.com/allstd/dotted.v3.Node.Kind": 0,
    "example.com/allstd/dotted%2ev3.Node.Value": 8,
    "example.com/allstd/dotted.v3.Node.Base": 20,
    "example.com/allstd/dotted.v3.Node.Base.Line": 24,
    "example.com/allstd/dotted.v3.Node.Line": 24,
    "example.com/allstd/dotted.v3.Node.Other": 32,
    "example.com/allstd/dotted.v3.Node.Other.Column": None,  # behind a pointer
    "example.com/allstd/dotted.v3.Node.Column": None,
    "example.com/allstd/dotted.v3.Node.Inner": 40,
    "example.com/allstd/dotted.v3.Node.Inner.B": 48,
    "example.com/allstd/dotted.v3.Node.B": None,  # not embedded
    "example.com/allstd/dotted.v3.Node.End": 64,
    "example.com/allstd/dotted.v3.Node._": None,
    "main.Nested.Node": 8,
    "main.Nested.Node.Inner.B": 56,
    "main.Nested.Line": 32,
    "main.Pair[int,string].Value": 8,
    "main.Pair[string,*net/url.URL].Next": 24,
    "net/http.Request.Method": 0,
    "net/http.Request.Method.x": None,
    "net/http.Request": None,
    "runtime.g.m": 48,
    "": None,
    ".": None,
    "a/b": None,
}


@pytest.mark.parametrize("go", VERSIONS)
def test_offsets_by_path(go: str) -> None:
    with Executable(str(golang.build("allstd", go=go))) as executable:
        structs = executable.structs(types_of(PATHS))
    assert {path: field_offset(structs, path) for path in PATHS} == PATHS


def test_a_path_may_mean_several_types_where_the_package_has_dots() -> None:
    assert list(candidates_of("net/http.Request.URL")) == [("net/http.Request", "URL")]
    assert list(candidates_of("gopkg.in/yaml.v3.Node.Kind")) == [
        ("gopkg.in/yaml.v3", "Node.Kind"),
        ("gopkg.in/yaml.v3.Node", "Kind"),
    ]
    assert list(candidates_of("a/b.T[c/d.e].f")) == [("a/b.T[c/d.e]", "f")]


def test_a_type_is_split_at_its_last_dot() -> None:
    assert split_type("net/http.Request") == ("net/http", "Request")
    assert split_type("gopkg.in/yaml%2ev3.Node") == ("gopkg.in/yaml.v3", "Node")
    assert split_type("sync/atomic.Pointer[net/http.Request]") == ("sync/atomic", "Pointer[net/http.Request]")


@pytest.mark.parametrize("go", VERSIONS)
def test_vendored_types_are_found_by_their_own_name(go: str) -> None:
    with Executable(str(golang.build("allstd", go=go))) as executable:
        name = "golang.org/x/crypto/cryptobyte.BuildError"
        found = executable.structs([name, f"vendor/{name}"])
    assert {struct.package for struct in found.values()} == {"vendor/golang.org/x/crypto/cryptobyte"}
    assert len(found) == 2


def test_types_name_their_fields_types() -> None:
    with Executable(str(golang.build("allstd", go=NEWEST))) as executable:
        request = executable.structs(["net/http.Request"])["net/http.Request"]
    assert request.package == "net/http"
    assert request.fields["URL"].type == "*url.URL"
    assert request.fields["Header"].type == "http.Header"
    assert request.fields["Method"].size == 16
