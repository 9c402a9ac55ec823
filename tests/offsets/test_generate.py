"""Making tables for real, of a few versions. What was read stays under build/: only the first time takes long."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.executable import Field, Struct
from agent.kernel import btf
from agent.offsets.fields import Wanted, wanted_fields
from agent.offsets.generate import GenerateError, Generator, Outcome, of_module
from agent.offsets.layouts import Layouts
from agent.offsets.programs import PROGRAMS, Program
from agent.offsets.state import State
from agent.offsets.table import Table
from agent.offsets.toolchains import GoError, Toolchains, module_versions, toolchain_versions
from agent.offsets.versions import STANDARD_LIBRARY, order, release
from agent.paths import object_file
from tests.support.golang import REPOSITORY, VERSIONS

DATE = datetime(2026, 11, 22, tzinfo=timezone.utc)
STATE = State(REPOSITORY / "build" / "offsets")

NET = "golang.org/x/net"
STD, X_NET = (next(one for one in PROGRAMS if one.module == path) for path in (STANDARD_LIBRARY, NET))
_SERVER = wanted_fields([btf.read(str(object_file("net_http_server")))])
_PARTS = [of_module(_SERVER, path, PROGRAMS) for path in (STANDARD_LIBRARY, NET)]
EVERYTHING = Wanted(_PARTS[0].fields | _PARTS[1].fields, _PARTS[0].maps | _PARTS[1].maps)
FEW = Wanted(frozenset({"net/http.Request.Method", "net/http.response.status"}), frozenset())


def generator(
    *, wanted: Wanted = FEW, since: Table | None = None, state: State = STATE, **versions: list[str]
) -> Generator:
    """One of the versions `std` and `net`, in a state that outlives the test."""
    listed = {STANDARD_LIBRARY: versions["std"], NET: versions.get("net", [])}
    programs = (STD, X_NET) if "net" in versions else (STD,)
    toolchains = Toolchains(state.directory / "toolchains")
    return Generator(state, toolchains, wanted, programs, since, jobs=1, list_versions=listed.__getitem__)


def ignore(outcome: Outcome) -> None:
    """Report nothing."""


def finish(one: Generator) -> Table:
    one.run(one.tasks(), ignore)
    while tasks := one.ends_tasks():
        one.run(tasks, ignore)
    assert one.tasks() == []
    return one.table(DATE)


@pytest.fixture(scope="module")
def made() -> Table:
    return finish(generator(wanted=EVERYTHING, std=["1.23.12", "1.27.4"], net=["v0.33.0", "v0.35.0"]))


def test_a_table_of_both_modules_and_architectures(made: Table) -> None:
    std, net = made.modules[STANDARD_LIBRARY], made.modules[NET]
    assert std.versions == std.arm64 == ("1.23.12", "1.27.4")
    assert net.versions == net.arm64 == ("v0.33.0", "v0.35.0")
    assert set(std.fields) | set(net.fields) == EVERYTHING.names
    assert {name for name in net.fields if not name.startswith(NET)} == set()
    known = {
        ("runtime.g.goid", "1.23.12"): 160,
        ("runtime.g.goid", "1.27.4"): 152,
        ("runtime.hmap.B", "1.23.12"): 9,
        ("runtime.hmap.B", "1.27.4"): None,
        ("net/http.Header:group_size", "1.23.12"): None,
        ("net/http.Header:group_size", "1.27.4"): 328,
        ("net/http.response.status", "1.23.12"): 120,
        ("net/http.response.status", "1.27.4"): 128,
    }
    assert {key: std.offset(*key, "arm64") for key in known} == known
    assert net.offset(f"{NET}/http2.responseWriterState.status", "v0.33.0", "amd64") is not None


def test_the_committed_table_says_the_same(made: Table) -> None:
    from agent.offsets.table import load

    committed = load(REPOSITORY / "offsets.json")
    for path, module in made.modules.items():
        for version in module.versions:
            for name in module.fields.keys() & committed.modules[path].fields.keys():
                assert committed.modules[path].offset(name, version, "amd64") == module.offset(
                    name, version, "amd64"
                )


@pytest.mark.usefixtures("made")
def test_going_on_from_a_table_builds_only_what_is_new(tmp_path: Path) -> None:
    """Nothing is left of the state, and nothing but the new version is built."""
    old = generator(std=["1.23.12"], state=STATE)
    first = finish(old)
    state = State(tmp_path)
    more = generator(std=["1.23.12", "1.27.4"], since=first, state=state)
    assert [(task.version, task.arch) for task in more.tasks()] == [("1.27.4", "amd64")]
    for arch in ("amd64", "arm64"):
        layouts = STATE.layouts(STD, "1.27.4", arch, "1.27.4")
        assert layouts is not None
        state.keep(STD, "1.27.4", arch, "1.27.4", layouts)
    table = finish(more)
    assert table == finish(generator(std=["1.23.12", "1.27.4"]))
    assert finish(generator(std=["1.23.12", "1.27.4"], since=table, state=State(tmp_path / "empty"))) == table


@pytest.mark.usefixtures("made")
def test_going_on_from_an_unfinished_table_finishes_it(tmp_path: Path) -> None:
    state = State(tmp_path)
    layouts = STATE.layouts(STD, "1.27.4", "amd64", "1.27.4")
    assert layouts is not None
    state.keep(STD, "1.27.4", "amd64", "1.27.4", layouts)
    unfinished = generator(std=["1.23.12", "1.27.4"], state=state).table(DATE, partial=True)
    assert unfinished.modules[STANDARD_LIBRARY].unavailable == {"1.23.12": "not built yet"}
    more = generator(std=["1.23.12", "1.27.4"], since=unfinished)
    assert finish(more).modules[STANDARD_LIBRARY].versions == ("1.23.12", "1.27.4")


@pytest.mark.usefixtures("made")
def test_going_on_from_a_table_without_arm64_builds_that(tmp_path: Path) -> None:
    state = State(tmp_path)
    for version in ("1.23.12", "1.27.4"):
        layouts = STATE.layouts(STD, version, "amd64", version)
        assert layouts is not None
        state.keep(STD, version, "amd64", version, layouts)
    unfinished = generator(std=["1.23.12", "1.27.4"], state=state).table(DATE)
    more = generator(std=["1.23.12", "1.27.4"], since=unfinished, state=state)
    assert more.tasks() == []
    assert {task.arch for task in more.ends_tasks()} == {"arm64"}


@pytest.mark.usefixtures("made")
def test_a_module_of_which_a_field_is_new_is_made_anew(tmp_path: Path) -> None:
    method = Wanted(frozenset({"net/http.Request.Method"}), frozenset())
    versions = ["1.23.12", "1.27.4"]
    first = finish(generator(std=versions, wanted=method))
    both = Wanted(method.fields | {"net/http.Request.Host"}, frozenset())
    more = generator(std=versions, since=first, wanted=both, state=State(tmp_path))
    assert [task.version for task in more.tasks()] == ["1.27.4", "1.23.12"]
    table = generator(std=versions, since=first, wanted=both).table(DATE)
    assert set(table.modules[STANDARD_LIBRARY].fields) == both.names


@pytest.mark.usefixtures("made")
def test_only_one_module_is_made(made: Table) -> None:
    """The others stay as they were, and lack what came to be wanted since."""
    net = next(iter(of_module(EVERYTHING, NET, PROGRAMS).fields))
    wanted = Wanted(frozenset({net, "net/http.Request.Method", "net/http.Request.Cookie"}), frozenset())
    one = generator(std=["1.27.4"], net=["v0.33.0"], wanted=wanted, since=made)
    one.only = (NET,)
    table = finish(one)
    assert table.modules[STANDARD_LIBRARY] == made.modules[STANDARD_LIBRARY]
    assert set(table.modules[NET].fields) == {net}


def test_what_is_not_there_is_listed_with_the_reason(tmp_path: Path) -> None:
    one = generator(std=["1.27.99"], state=State(tmp_path))
    outcomes: list[Outcome] = []
    one.run(one.tasks(), outcomes.append)
    assert [outcome.failed for outcome in outcomes] == [False]
    assert one.tasks() == []
    unavailable = one.table(DATE, partial=True).modules[STANDARD_LIBRARY].unavailable
    assert list(unavailable) == ["1.27.99"]
    assert unavailable["1.27.99"].startswith("the toolchain can't be had: ")
    State(tmp_path).forget_reasons()
    assert len(one.tasks()) == 1


def test_a_network_that_fails_is_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPROXY", "http://127.0.0.1:1")
    one = generator(std=["1.26.1"], state=State(tmp_path))
    outcomes: list[Outcome] = []
    with pytest.raises(GenerateError, match=r"std 1\.26\.1 amd64: .*dial tcp"):
        one.run(one.tasks(), outcomes.append)
    assert [outcome.failed for outcome in outcomes] == [True]
    assert len(one.tasks()) == 1
    with pytest.raises(GenerateError, match=r"std 1\.26\.1 is not built yet"):
        one.table(DATE)
    assert one.table(DATE, partial=True).modules[STANDARD_LIBRARY].unavailable == {"1.26.1": "not built yet"}


@pytest.mark.usefixtures("made")
def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    one = generator(std=["1.23.12", "1.27.4"], state=State(tmp_path))
    done = []

    def interrupt(outcome: Outcome) -> None:
        done.append(outcome.task)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.run(one.tasks(), interrupt)
    left = one.tasks()
    assert len(done) == len(left) == 1
    assert done != left
    one.run(left, ignore)
    assert one.tasks() == []


def test_a_type_that_a_program_does_not_reach_is_told_of(tmp_path: Path) -> None:
    """Also where it came to be wanted only after the build."""
    state = State(tmp_path)
    state.keep(STD, "1.27.4", "amd64", "1.27.4", Layouts({}, {}, {"runtime.schedt": "DWARF"}))
    wanted = Wanted(frozenset({"runtime.schedt.lock"}), frozenset())
    with pytest.raises(
        GenerateError, match=r"^std 1\.27\.4 amd64: .*only the DWARF has .*schedt; its program has"
    ):
        generator(std=["1.27.4"], state=state, wanted=wanted).table(DATE)


@pytest.mark.usefixtures("made")
def test_a_misspelt_tag_is_noticed() -> None:
    wanted = Wanted(frozenset({"net/http.Request.Method", "net/http.Request.Methud"}), frozenset())
    with pytest.raises(GenerateError, match=r"^net/http\.Request\.Methud: no version of any module has it"):
        generator(std=["1.27.4"], wanted=wanted).table(DATE)


def test_releases_that_the_proxy_does_not_list_are_made_too(tmp_path: Path) -> None:
    """It lists those that it was asked for. The ends of a range are built by the oldest Go and for arm64 as well."""
    gin = next(one for one in PROGRAMS if one.module == "github.com/gin-gonic/gin")
    wanted = Wanted(frozenset({"github.com/gin-gonic/gin.Context.fullPath"}), frozenset())
    listed = {STANDARD_LIBRARY: ["1.19", "1.27.4"], gin.module: ["v1.7.0", "v1.99.0"]}
    state = State(tmp_path)
    one = Generator(
        state, Toolchains(tmp_path), wanted, (STD, gin), list_versions=listed.__getitem__, only=(gin.module,)
    )

    def missing() -> set[str]:
        return {task.version for task in one.tasks()}

    assert missing() == {*gin.released, "v1.99.0"}
    for version in missing():
        state.keep(gin, version, "amd64", "1.27", at(112 if order(version) < order("v1.8.0") else 120))
    assert missing() == set()
    ends = {(task.version, task.arch, task.by_oldest) for task in one.ends_tasks()}
    assert ends == {
        (version, *how)
        for version in ("v1.5.0", "v1.7.7", "v1.8.0", "v1.99.0")
        for how in (("arm64", False), ("arm64", True), ("amd64", True))
    }
    # What isn't there any more by the newest Go, and is by the oldest, belongs to the range all the same.
    state.keep(gin, "v1.12.0", "amd64", "1.27", Layouts({}, {}, {}))
    state.keep(gin, "v1.99.0", "amd64", "1.27", Layouts({}, {}, {}))
    assert ("v1.12.0", "amd64", True) in {
        (task.version, task.arch, task.by_oldest) for task in one.ends_tasks()
    }
    state.keep(gin, "v1.12.0", "amd64", "1.19", at(120))
    ends = {(task.version, task.arch, task.by_oldest) for task in one.ends_tasks()}
    assert {("v1.12.0", "arm64", False), ("v1.99.0", "amd64", True)} < ends
    assert ("v1.99.0", "arm64", False) not in ends
    state.keep_reason(gin, "v1.99.0", "amd64", "1.19", "it needs a newer Go")
    state.keep(gin, "v1.8.0", "amd64", "1.19", at(128))
    with pytest.raises(
        GenerateError, match=r"gin v1\.8\.0 amd64: the offset of .*fullPath depends on the Go"
    ):
        one.table(DATE, partial=True)


def at(offset: int) -> Layouts:
    """A program's layouts with gin.Context.fullPath at an offset."""
    path = Field("fullPath", offset, 16, "", embedded=False, struct=None)
    context = Struct("github.com/gin-gonic/gin.Context", "", 256, {"fullPath": path})
    return Layouts({context.name: context}, {}, {})


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.module)
def test_known_releases_are_of_the_supported_range(program: Program) -> None:
    assert program.released == sorted(set(program.released), key=order)
    assert all(release(one) and order(one) >= order(program.since) for one in program.released)


def test_a_field_is_its_modules() -> None:
    names = {
        "runtime.g.goid",
        "net/http.Request.Method",
        "internal/runtime/maps.Map.dirPtr",
        "golang.org/x/net/http2.responseWriter.rws",
        "golang.org/x/net/http2/hpack.Decoder.buf",
        "golang.org/x/network.T.f",
        "go.opentelemetry.io/otel.T.f",
        "go.opentelemetry.io/otel/trace.T.f",
    }
    wanted = Wanted(frozenset(names), frozenset({"net/http.Header:slots"}))
    programs = [
        Program(module=module, since="v0.0.0")
        for module in ("std", NET, "go.opentelemetry.io/otel", "go.opentelemetry.io/otel/trace")
    ]
    parts = {one.module: of_module(wanted, one.module, programs) for one in programs}
    assert parts["std"].names == {
        "runtime.g.goid",
        "net/http.Request.Method",
        "internal/runtime/maps.Map.dirPtr",
        "net/http.Header:slots",
    }
    assert parts[NET].names == {name for name in names if name.startswith("golang.org/x/net/")}
    assert parts["go.opentelemetry.io/otel"].names == {"go.opentelemetry.io/otel.T.f"}
    assert parts["go.opentelemetry.io/otel/trace"].names == {"go.opentelemetry.io/otel/trace.T.f"}


def test_layouts_ask_for_what_their_tags_say() -> None:
    assert "net/http.Request.Method" in EVERYTHING.fields
    assert "net/http/internal/http2.responseWriter.rws" in EVERYTHING.fields
    assert "net/http.Header:group_size" in EVERYTHING.maps
    assert EVERYTHING.names == EVERYTHING.fields | EVERYTHING.maps


def test_the_proxy_lists_every_release_that_tests_use() -> None:
    assert set(VERSIONS) <= set(toolchain_versions())
    assert {"v0.33.0", "v0.35.0"} <= set(module_versions(NET))
    with pytest.raises(GoError):
        module_versions("gospan.invalid/nothing")


def test_an_installed_go_is_used_for_the_release_that_it_is(tmp_path: Path) -> None:
    with pytest.raises(GoError, match="is no Go tree"):
        Toolchains(tmp_path / "toolchains", [tmp_path])
    root = Toolchains(tmp_path / "toolchains").get("1.27.4").root
    given = Toolchains(tmp_path / "toolchains", [root])
    assert given.given == {"1.27.4"}
    assert given.get("1.27.4").root == root
    (tmp_path / "VERSION").write_text("devel go1.28-0123456")
    with pytest.raises(GoError, match="no released version"):
        Toolchains(tmp_path / "toolchains", [tmp_path])


def test_a_changed_program_is_built_again(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.keep_reason(STD, "1.27.4", "amd64", "1.27.4", "why")
    assert state.has(STD, "1.27.4", "amd64", "1.27.4")
    assert not state.has(replace(STD, module=NET), "1.27.4", "amd64", "1.27.4")
    assert STD.digest != X_NET.digest


def test_damaged_state_is_as_good_as_none(tmp_path: Path) -> None:
    state = State(tmp_path)
    path = tmp_path / f"std-{STD.digest}" / "1.27.4-amd64-go1.27.4.json.gz"
    path.parent.mkdir()
    path.write_bytes(b"\x1f\x8bnonsense")
    assert state.has(STD, "1.27.4", "amd64", "1.27.4")
    assert state.layouts(STD, "1.27.4", "amd64", "1.27.4") is None
    assert not state.has(STD, "1.27.4", "amd64", "1.27.4")
