"""Plans of real executables: what is on, what is off, and the words for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.executable import BuildInfo, Executable
from agent.kernel import btf
from agent.kernel.formats import format_of
from agent.libraries import LIBRARIES, Feature
from agent.libraries.grpc_propagation import GRPC_PROPAGATION
from agent.libraries.http2_propagation import HTTP2_PROPAGATION
from agent.libraries.kafka_go_propagation import KAFKA_GO_PROPAGATION
from agent.libraries.net_http_server import NET_HTTP_SERVER
from agent.offsets.resolve import Resolver, Source
from agent.offsets.table import Listed
from agent.paths import object_file
from agent.plan import LibraryPlan, Plan, Status, make_plan
from tests.support import grpc, kafka_go, sql
from tests.support.golang import VERSIONS, build

TYPES = {library.object: btf.read(str(object_file(library.object))) for library in LIBRARIES}


def plan_of(app: str, *, go: str = VERSIONS[-1], mode: str = "stripped", arch: str = "amd64") -> Plan:
    with Executable(str(build(app, go=go, mode=mode, arch=arch))) as executable:
        return make_plan(executable, TYPES, Resolver())


def server_plan(plan: Plan) -> LibraryPlan:
    (found,) = (one for one in plan.libraries if one.library is NET_HTTP_SERVER)
    return found


@pytest.mark.parametrize("go", VERSIONS)
def test_every_probe_is_on_an_emulated_instruction(go: str) -> None:
    found = server_plan(plan_of("http_server", go=go))
    assert found.status is (Status.ON if go >= "1.22" else Status.PARTIAL)
    # Since Go 1.24 the program serves cleartext HTTP/2 without golang.org/x/net.
    wanted = {
        probe.program for probe in NET_HTTP_SERVER.probes if go < "1.24" or not probe.program.startswith("x_")
    }
    if go < "1.22":
        wanted.remove("http_server_route")
    assert {probe.program for probe in found.probes} == wanted
    assert all(probe.emulated for probe in found.probes)
    assert found.version == f"go{go}"
    assert [one.what for one in found.off] == ([] if go >= "1.22" else ["http.route"])
    assert all("1.22" in one.why for one in found.off)


def test_arm64() -> None:
    found = server_plan(plan_of("http_server", arch="arm64"))
    assert found.status is Status.ON
    assert all(probe.emulated for probe in found.probes)


@pytest.mark.parametrize("go", VERSIONS)
def test_layouts_hold_what_the_fields_say(go: str) -> None:
    with Executable(str(build("http_server", go=go))) as executable:
        found = server_plan(make_plan(executable, TYPES, Resolver()))
        from_code = executable.types_from_code
    offsets = {one.field: one.offset for one in found.fields} | {"types": from_code}
    assert set(found.layouts) == {
        "runtime_layout",
        "header_map_layout",
        "http_server_layout",
        "connection_layout",
    }
    for name, packed in found.layouts.items():
        layout = format_of(TYPES["net_http_server"].struct(name))
        values = layout.unpack(packed)
        for field in layout.fields:
            names = [tag.partition(":")[2] for tag in field.tags]
            known = [offsets[one] for one in names if one in offsets]
            if not any(
                tag.startswith(("go-itab:", "go-place:", "go-kept:", "go-failure:")) for tag in field.tags
            ):
                assert values[field.name] == (known[0] if known else (1 << 8 * field.size) - 1)
    maps = "internal/runtime/maps.Map.dirPtr" if go >= "1.24" else "runtime.hmap.buckets"
    assert maps in offsets
    assert {one.source for one in found.fields} == {Source.TYPE_INFORMATION}


def test_the_place_of_a_call_is_where_its_probe_goes() -> None:
    name, callee = "net/http/internal/http2.(*ClientConn).writeHeaders", "bufio.(*Writer).Flush"
    with Executable(str(build("http_client"))) as executable:
        plan = make_plan(executable, TYPES, Resolver())
        (function,) = executable.functions({name, callee})[name]
    (found,) = (one for one in plan.libraries if one.library is HTTP2_PROPAGATION)
    (probe,) = (one for one in found.probes if one.program == "http2_request_written")
    layout = format_of(TYPES["http2_propagation"].struct("http2_propagation_layout"))
    place = layout.unpack(found.layouts["http2_propagation_layout"])["flush"]
    assert isinstance(place, int)
    assert place - function.address == probe.file_offset - function.file_offset > 0
    assert (probe.at, probe.emulated) == ("call", True)


def test_what_is_written_into_is_as_long_as_the_program_says() -> None:
    """And what the compiler has inlined is not written into at all."""
    with Executable(str(kafka_go.program())) as executable:
        plan = make_plan(executable, TYPES, Resolver())
    (found,) = (one for one in plan.libraries if one.library is KAFKA_GO_PROPAGATION)
    layout = format_of(TYPES["kafka_go_propagation"].struct("kafka_go_propagation_layout"))
    assert layout.unpack(found.layouts["kafka_go_propagation_layout"])["page_size"] == 65536
    with Executable(str(kafka_go.program("0.4.39"))) as executable:
        plan = make_plan(executable, TYPES, Resolver())
    (found,) = (one for one in plan.libraries if one.library is KAFKA_GO_PROPAGATION)
    assert (found.status, [one.what for one in found.off]) == (
        Status.OFF,
        ["which call a message belongs to"],
    )
    assert "the compiler has inlined it" in found.off[0].why


def server_executable() -> Executable:
    return Executable(str(build("http_server")))


def test_a_program_without_any_library() -> None:
    elsewhere = replace(NET_HTTP_SERVER.probes[0], symbols=("example.com/nothing.Here",))
    with server_executable() as executable:
        plan = make_plan(
            executable, TYPES, Resolver(), libraries=[replace(NET_HTTP_SERVER, probes=(elsewhere,))]
        )
    assert plan.libraries == ()
    assert plan.traced == ()
    assert "none of the libraries" in plan.off[0].why


def test_a_program_with_opentelemetry_inside_is_known() -> None:
    assert plan_of("sdk").sdk == "go.opentelemetry.io/otel/sdk v1.47.0"
    assert plan_of("http_server").sdk == ""


def test_a_library_that_is_turned_off_says_so() -> None:
    with server_executable() as executable:
        plan = make_plan(executable, TYPES, Resolver(), disabled={NET_HTTP_SERVER.name: "by me"})
    found = server_plan(plan)
    assert (found.status, found.probes, found.layouts) == (Status.OFF, (), {})
    assert [one.why for one in found.off] == ["by me"]


def test_what_another_library_tells_as_well_is_left_to_that() -> None:
    """Where pgx is the only driver of database/sql, its own probes do."""
    with Executable(str(sql.program(only_pgx=True))) as executable:
        plan = make_plan(executable, TYPES, Resolver())
        without = make_plan(executable, TYPES, Resolver(), disabled={"pgx": "by me"})
    with Executable(str(sql.program())) as executable:
        both = make_plan(executable, TYPES, Resolver())
    assert {one.library.name for one in without.traced} >= {"database/sql"}
    assert {one.library.name for one in both.traced} >= {"database/sql", "pgx"}
    (left,) = (one for one in plan.libraries if one.library.name == "database/sql")
    # But not what never comes to it, for lack of a connection.
    assert left.status is Status.PARTIAL
    assert {one.at for one in left.probes} == {"failure", "tail"}
    assert [(one.what, one.why) for one in left.off] == [
        ("what gets a connection", "all of it goes through pgx, whose probes tell of it at fewer hits")
    ]
    (pgx,) = (one for one in plan.libraries if one.library.name == "pgx")
    assert {"work"} == {one.at for one in pgx.probes if one.program == "pgx_query_end"}


@pytest.mark.parametrize("go", sql.RELEASES)
def test_what_gets_no_connection_is_seen_where_that_is_told(go: str) -> None:
    """And there the function has kept whatever it was given."""
    with Executable(str(sql.program(go))) as executable:
        plan = make_plan(executable, TYPES, Resolver())
    (found,) = (one for one in plan.libraries if one.library.name == "database/sql")
    assert found.status is Status.ON
    places = {one.symbol.rpartition(".")[2].lower(): one for one in found.probes if one.at == "failure"}
    methods = {"query", "exec", "prepare", "begin", *(("conn",) if go != "1.19.13" else ())}
    assert places.keys() == methods
    assert {one.program for one in places.values()} == {"sql_unconnected"}
    layout = format_of(TYPES["database_sql"].struct("database_sql_layout"))
    values = layout.unpack(found.layouts["database_sql_layout"])
    for method in methods:
        texts = ("query", "length") if method in ("query", "exec", "prepare") else ()
        for what in ("db", "context", *texts):
            assert values[f"{method}_{what}"] != 0xFFFF, (method, what)
        at = values[f"{method}_fails"]
        assert isinstance(at, int)
        assert at % 0x1000 == places[method].file_offset % 0x1000


def test_a_field_that_is_gone_turns_off_what_needs_it() -> None:
    optional = Feature(
        what="something", fields=(("net/http.Request.Gone",), ("net/http.Request.Method", "a.B.C"))
    )
    with server_executable() as executable:
        partial = make_plan(
            executable, TYPES, Resolver(), libraries=[replace(NET_HTTP_SERVER, features=(optional,))]
        )
        off = make_plan(
            executable,
            TYPES,
            Resolver(),
            libraries=[replace(NET_HTTP_SERVER, features=(replace(optional, required=True),))],
        )
    assert server_plan_of(partial).status is Status.PARTIAL
    assert "net/http.Request.Gone" in server_plan_of(partial).off[0].why
    assert server_plan_of(off).status is Status.OFF
    assert server_plan_of(off).probes == ()


def server_plan_of(plan: Plan) -> LibraryPlan:
    (only,) = plan.libraries
    return only


def test_a_required_function_that_is_gone_turns_off_the_library() -> None:
    first, *others = NET_HTTP_SERVER.probes
    without = replace(NET_HTTP_SERVER, probes=(replace(first, symbols=("net/http.gone",)), *others))
    with server_executable() as executable:
        plan = make_plan(executable, TYPES, Resolver(), libraries=[without])
    found = server_plan_of(plan)
    assert found.status is Status.OFF
    assert "net/http.gone" in found.off[0].why
    assert not plan.traced


def test_the_table_is_asked_for_what_type_information_lacks() -> None:
    class Everywhere:
        def find(self, name: str, build_info: BuildInfo, arch: str) -> Listed | None:
            assert (build_info.go_version, arch) == (f"go{VERSIONS[-1]}", "amd64")
            return Listed(40, VERSIONS[-1], exact=True) if name == "runtime.hmap.B" else None

    with server_executable() as executable:
        found = server_plan(make_plan(executable, TYPES, Resolver(Everywhere())))
    by_name = {one.field: one for one in found.fields}
    assert by_name["runtime.hmap.B"].offset == 40
    assert by_name["runtime.hmap.B"].source is Source.TABLE
    assert by_name["net/http.Request.Method"].source is Source.TYPE_INFORMATION


@pytest.mark.parametrize("exact", [True, False])
def test_a_field_that_has_to_be_certain_is_never_a_neighbours(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {"net.netFD.laddr": 88, "net.netFD.raddr": 104}

    class Everywhere:
        def find(self, name: str, build_info: BuildInfo, arch: str) -> Listed | None:  # noqa: ARG002
            return Listed(listed[name], VERSIONS[-1], exact=exact) if name in listed else None

    structs = Executable.structs
    monkeypatch.setattr(
        Executable,
        "structs",
        lambda self, names: structs(self, [name for name in names if name != "net.netFD"]),
    )
    with server_executable() as executable:
        found = server_plan(make_plan(executable, TYPES, Resolver(Everywhere())))
    layout = format_of(TYPES["net_http_server"].struct("connection_layout"))
    assert layout.unpack(found.layouts["connection_layout"])["fd_local"] == (88 if exact else 0xFFFF)
    sources = {one.field: one.source for one in found.fields if one.field in listed}
    assert sources == (dict.fromkeys(listed, Source.TABLE) if exact else {})
    why = f"only the patch releases next to this one tell {', '.join(listed)}, which isn't certain enough"
    assert [one.why for one in found.off] == ([] if exact else [why])


def test_the_table_may_have_the_geometry_of_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    class Everywhere:
        def find(self, name: str, build_info: BuildInfo, arch: str) -> Listed | None:  # noqa: ARG002
            return Listed(24, VERSIONS[-1], exact=True) if name == "net/http.Header:key_stride" else None

    monkeypatch.setattr(Executable, "map_geometry", lambda *_: None)
    with server_executable() as executable:
        found = server_plan(make_plan(executable, TYPES, Resolver(Everywhere())))
    fields = {one.field: (one.offset, one.source) for one in found.fields}
    assert fields["net/http.Header:key_stride"] == (24, Source.TABLE)
    assert "net/http.Header:elem_stride" not in fields
    layout = format_of(TYPES["net_http_server"].struct("header_map_layout"))
    assert layout.unpack(found.layouts["header_map_layout"])["group_key_stride"] == 24


@pytest.mark.parametrize(("arch", "on"), [("amd64", True), ("arm64", False)])
def test_grpc_is_written_into_where_that_can_be(arch: str, on: bool) -> None:
    with Executable(str(grpc.program(arch=arch))) as executable:
        plan = make_plan(executable, TYPES, Resolver())
    (found,) = (one for one in plan.libraries if one.library is GRPC_PROPAGATION)
    assert (found.status is Status.ON) == bool(found.probes) == on
    assert [one.why for one in found.off] == ([] if on else [GRPC_PROPAGATION.not_on[arch]])
