"""The table of this repository: complete, in order, and right about every program that can be built here."""

from __future__ import annotations

import dataclasses
import json

import fastjsonschema
import pytest

from agent.executable import Executable, field_offset
from agent.kernel import btf
from agent.libraries import LIBRARIES
from agent.offsets.dwarf import Dwarf
from agent.offsets.fields import wanted_fields
from agent.offsets.geometry import parts
from agent.offsets.programs import PROGRAMS, STANDARD_LIBRARY
from agent.offsets.table import Table, load
from agent.offsets.verify import Comparison, compare
from agent.offsets.versions import by_minor, go_release, without_gaps
from agent.paths import object_file
from tests.support import golang
from tests.support.golang import NEWEST, REPOSITORY, VERSIONS

PATH = REPOSITORY / "offsets.json"
NET = "golang.org/x/net"

AWAITED = frozenset(
    (
        "net.OpError.Err",
        "net/http.Request.Response",
        "net/http.Request.URL",
        "net/http.Request.ctx",
        "net/http.Response.ProtoMajor",
        "net/http.Response.ProtoMinor",
        "net/http.Response.Request",
        "net/http.Response.StatusCode",
        "net/http/internal/http2.ServerRequest.Context",
        "net/url.URL.Fragment",
        "net/url.URL.Host",
        "net/url.URL.Path",
        "net/url.URL.RawPath",
        "net/url.URL.RawQuery",
        "net/url.URL.Scheme",
        "net/url.URL.User",
        "os.SyscallError.Err",
        "runtime.g.stack.hi",
    )
)
"""Fields that layouts have come to want since the table was built: the next build brings them, and this is emptied."""

WANTED = wanted_fields([btf.read(str(object_file(library.object))) for library in LIBRARIES])
WANTED = dataclasses.replace(WANTED, fields=WANTED.fields - AWAITED)


@pytest.fixture(scope="module")
def table() -> Table:
    return load(PATH)


def listed(table: Table) -> set[str]:
    return {name for module in table.modules.values() for name in module.fields}


def test_it_agrees_with_its_schema() -> None:
    schema = json.loads((REPOSITORY / "docs/offsets.schema.json").read_text())
    fastjsonschema.compile(schema)(json.loads(PATH.read_text()))


def test_it_is_as_the_generator_writes_it(table: Table) -> None:
    assert PATH.read_text() == table.dump()


def test_every_field_of_it_is_wanted_by_a_layout(table: Table) -> None:
    """A layout may want more: what is new to the table is in the type information all the same."""
    assert listed(table) <= WANTED.names


def test_each_module_has_a_program(table: Table) -> None:
    assert set(table.modules) <= {program.module for program in PROGRAMS}


def test_it_has_every_go_release_since_1_19(table: Table) -> None:
    std = table.modules[STANDARD_LIBRARY]
    assert set(std.versions) | set(std.unavailable) >= set(without_gaps(VERSIONS))
    assert list(by_minor(std.versions)) == [
        (1, minor) for minor in range(19, 19 + len(by_minor(std.versions)))
    ]
    for (major, minor), patches in by_minor(std.versions).items():
        assert patches[0] == go_release((major, minor, 0))
    assert not [reason for reason in std.unavailable.values() if "not built yet" in reason]


def test_it_has_every_minor_version_of_x_net(table: Table) -> None:
    net = table.modules[NET]
    assert net.versions[0] == "v0.1.0"
    numbers = [minor for _, minor in by_minor([*net.versions, *net.unavailable])]
    assert numbers == list(range(1, numbers[-1] + 1))
    assert numbers[-1] >= 62


def test_ranges_of_a_field_dont_overlap(table: Table) -> None:
    for module in table.modules.values():
        at = {version: number for number, version in enumerate(module.versions)}
        for ranges in module.fields.values():
            for arch in ("amd64", "arm64"):
                ends = [
                    end for one in ranges if one.arch in ("", arch) for end in (at[one.first], at[one.last])
                ]
                assert ends == sorted(ends)
                assert len(set(ends[1::2])) == len(ends[1::2])


# Offsets that were read by other means, by other people, from other builds: DWARF, debuggers, published tables.
KNOWN_MINORS = (19, 21, 22, 23, 24, 25, 26, 27)
KNOWN: dict[str, tuple[int | None, ...]] = {
    "runtime.g.goid": (152, 152, 152, 160, 160, 152, 152, 152),
    "runtime.g.parentGoid": (None, 272, 272, 280, 280, 272, 280, 280),
    "net/http.response.status": (120, 120, 120, 120, 120, 120, 120, 128),
    "net/http.Request.Method": (0,) * 8,
    "net/http.Request.Header": (56,) * 8,
    "net/http.Request.Host": (128,) * 8,
    "net/http.Request.RemoteAddr": (176,) * 8,
    "net/http.Request.RequestURI": (192,) * 8,
    "net/http.Header:group_size": (None, None, None, None, 328, 328, 328, 328),
    "net/http.Header:key_offset": (None, None, None, None, 8, 8, 8, 8),
    "net/http.Header:elem_offset": (None, None, None, None, 24, 24, 24, 24),
}


@pytest.mark.parametrize("name", KNOWN)
def test_it_agrees_with_what_is_known_from_elsewhere(name: str, table: Table) -> None:
    std = table.modules[STANDARD_LIBRARY]
    found = tuple(std.offset(name, go_release((1, minor, 0)), "amd64") for minor in KNOWN_MINORS)
    assert found == KNOWN[name]


def test_it_knows_what_a_patch_of_go_moved(table: Table) -> None:
    """Go 1.26.11 put a field into net/http.response (net/http/server.go): what is called a patch moves fields too."""
    std = table.modules[STANDARD_LIBRARY]
    assert [std.offset("net/http.response.status", f"1.26.{patch}", "amd64") for patch in (10, 11)] == [
        120,
        128,
    ]
    assert std.moves("net/http.response.status")
    assert not std.moves("net/http.Request.Method")


def assert_all_agree(compared: list[Comparison], *, at_least: int) -> None:
    assert [one for one in compared if one.differs] == []
    assert len([one for one in compared if one.found is not None and one.listed is not None]) >= at_least


@pytest.mark.parametrize(
    ("go", "arch"), [*((go, "amd64") for go in VERSIONS), (VERSIONS[0], "arm64"), (NEWEST, "arm64")]
)
def test_it_agrees_with_the_type_information_of_every_release(go: str, arch: str, table: Table) -> None:
    with Executable(str(golang.build("http_server", go=go, arch=arch))) as executable:
        compared = [one for one in compare(executable, table, WANTED) if one.found is not None]
        versions = {go, *(one.version for one in executable.build_info.dependencies if one.path == NET)}
    assert_all_agree(compared, at_least=18)
    # Whatever type information knows of the table's fields, the table knows, exactly.
    known = [one for one in compared if one.field in listed(table)]
    assert [one.field for one in known if one.listed is None or not one.listed.exact] == []
    assert {one.listed.version for one in compared if one.listed} == versions


@pytest.mark.parametrize("go", VERSIONS)
def test_it_agrees_with_the_dwarf_of_every_release(go: str, table: Table) -> None:
    path = golang.build("http_server", go=go, mode="plain")
    with path.open("rb") as file, Executable(str(path)) as executable:
        dwarf = Dwarf(file)
        info, arch = executable.build_info, executable.arch
    names = {name.rpartition(".")[0] for name in WANTED.fields} | {
        name.rpartition(".")[0].rpartition(".")[0] for name in WANTED.fields
    }
    structs = {name: dwarf.structs(name)[0] for name in names & dwarf.names}
    found = {name: field_offset(structs, name) for name in WANTED.fields}
    geometry = dwarf.map_geometry("net/http.Header")
    known = dict(parts("net/http.Header", geometry)) if geometry else {}
    found |= {name: known.get(name) for name in WANTED.maps}
    for name in sorted(listed(table)):
        if found.get(name) is not None:
            one = table.find(name, info, arch)
            assert (name, one.offset if one else None) == (name, found[name])
    assert len([one for one in found.values() if one is not None]) >= 18


def test_it_is_small() -> None:
    assert PATH.stat().st_size < 64 << 10
