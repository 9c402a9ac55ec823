"""The table of this repository: complete, in order, and right about every program that can be built here."""

from __future__ import annotations

import json
from collections import Counter

import fastjsonschema
import pytest

from agent.executable import Executable, field_offset
from agent.kernel import btf
from agent.libraries import LIBRARIES
from agent.offsets.dwarf import Dwarf
from agent.offsets.fields import wanted_fields
from agent.offsets.generate import of_module
from agent.offsets.geometry import parts
from agent.offsets.programs import PROGRAMS, Program
from agent.offsets.table import Module, Table, load
from agent.offsets.verify import Comparison, compare
from agent.offsets.versions import STANDARD_LIBRARY, by_minor, go_release, without_gaps
from agent.paths import object_file
from tests.support import golang
from tests.support.golang import NEWEST, REPOSITORY, VERSIONS

PATH = REPOSITORY / "offsets.json"
NET = "golang.org/x/net"

TYPES = [btf.read(str(object_file(library.object))) for library in LIBRARIES]
WANTED = wanted_fields(TYPES)
RANGES = {one.module: of_module(WANTED, one.module, PROGRAMS).names for one in PROGRAMS}
"""What is wanted of each module that has releases."""

WITHOUT_TABLE = (
    "google.golang.org/genproto/",
    "modernc.org/sqlite.",
    "github.com/godror/godror.",
)
"""Where fields are that only type information tells: a module that is used by commits, one that takes too much
disk, and one that takes a C compiler; a field of each (docs/offsets.md).
"""

PARTLY_LOST = ("github.com/labstack/echo",)
"""All its releases are from before Go had modules: some are no longer to be had, others require what has changed."""


@pytest.fixture(scope="module")
def table() -> Table:
    return load(PATH)


def test_it_agrees_with_its_schema() -> None:
    schema = json.loads((REPOSITORY / "docs/offsets.schema.json").read_text())
    fastjsonschema.compile(schema)(json.loads(PATH.read_text()))


def test_it_is_as_the_generator_writes_it(table: Table) -> None:
    assert PATH.read_text() == table.dump()


def test_it_has_every_field_of_every_layout_and_no_other(table: Table) -> None:
    wanted = {path: names for path, names in RANGES.items() if names}
    assert set(table.modules) == set(wanted)
    for path, module in table.modules.items():
        assert set(module.fields) <= wanted[path]
        assert set(module.fields) == wanted[path]
    others = WANTED.names - frozenset().union(*RANGES.values())
    assert [name for name in others if not name.startswith(WITHOUT_TABLE)] == []


def missing(module: Module) -> set[str]:
    """Versions that are not built yet, and ends of ranges that were not built for arm64."""
    ends = {end for ranges in module.fields.values() for one in ranges for end in (one.first, one.last)}
    unbuilt = {version for version, reason in module.unavailable.items() if reason == "not built yet"}
    return unbuilt | (ends - set(module.arm64))


def test_nothing_is_left_to_be_built(table: Table) -> None:
    assert {path: left for path, module in table.modules.items() if (left := missing(module))} == {}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.module)
def test_it_has_every_release_of_a_module(program: Program, table: Table) -> None:
    """What could not be built is there too, with the reason."""
    if RANGES[program.module]:
        module = table.modules[program.module]
        assert {*module.versions, *module.unavailable} >= set(program.released)
    else:
        assert program.module not in table.modules


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.module)
def test_nearly_every_release_of_a_module_could_be_built(program: Program, table: Table) -> None:
    module = table.modules[program.module]
    share = 1 if program.module in PARTLY_LOST else 10
    assert share * len(module.unavailable) < len(module.versions)


def test_it_has_every_go_release_since_1_19(table: Table) -> None:
    std = table.modules[STANDARD_LIBRARY]
    assert set(std.versions) | set(std.unavailable) >= set(without_gaps(VERSIONS))
    assert list(by_minor(std.versions)) == [
        (1, minor) for minor in range(19, 19 + len(by_minor(std.versions)))
    ]
    for (major, minor), patches in by_minor(std.versions).items():
        assert patches[0] == go_release((major, minor, 0))


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


def test_it_agrees_with_an_independent_table(table: Table) -> None:
    """OpenTelemetry's table for its own agent, of which `elsewhere.json` has the facts: made from other programs, by
    other code, on other machines.
    """
    elsewhere = json.loads((REPOSITORY / "tests/offsets/elsewhere.json").read_text())
    compared = Counter[str]()
    differing = []
    for path, other in elsewhere["modules"].items():
        module = table.modules.get(path)
        at = {version: number for number, version in enumerate(other["versions"])}
        for name, ranges in other["offsets"].items():
            if module is None or name not in module.fields:
                continue
            for first, last, offset in ranges:
                for version in other["versions"][at[first] : at[last] + 1]:
                    if version in module:
                        compared[path] += 1
                        if (found := module.offset(name, version, "amd64")) != offset:
                            differing.append((name, version, offset, found))
    assert differing == []
    assert compared[STANDARD_LIBRARY] > 1000
    assert compared["google.golang.org/grpc"] > 300
    assert compared["github.com/segmentio/kafka-go"] > 200


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
    # Whatever type information knows, the table knows, exactly.
    released = [one for one in compared if not one.field.startswith(WITHOUT_TABLE)]
    assert [one.field for one in released if one.listed is None or not one.listed.exact] == []
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
    for name in sorted(WANTED.names):
        if found.get(name) is not None:
            one = table.find(name, info, arch)
            assert (name, one.offset if one else None) == (name, found[name])
    assert len([one for one in found.values() if one is not None]) >= 18


def test_it_is_small() -> None:
    assert PATH.stat().st_size < 64 << 10
