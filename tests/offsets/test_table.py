from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from agent.executable import BuildInfo
from agent.executable import Module as BuildModule
from agent.offsets.table import Listed, Table, TableError, TableFile, load, parse, version_in
from tests.support.golang import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "docs/offsets.schema.json").read_text())

DOCUMENT: dict[str, Any] = {
    "schema": 1,
    "generated": "2026-11-22T12:00:00Z",
    "modules": {
        "std": {
            "versions": ["1.20", "1.20.2", "1.21.0", "1.22.0", "1.22.1", "1.22.4", "1.22.6"],
            "arm64": ["1.20"],
            "unavailable": {"1.22.2": "it is gone"},
            "offsets": {
                "net/http.Request.Method": [{"from": "1.20", "to": "1.22.6", "offset": 0}],
                "net/http.Request.pat": [{"from": "1.22.0", "to": "1.22.6", "offset": 264}],
                "net/http.response.status": [
                    {"from": "1.20", "to": "1.22.1", "offset": 120},
                    {"from": "1.22.4", "to": "1.22.6", "offset": 128},
                ],
                "net/http.response.w": [{"from": "1.20", "to": "1.22.6", "offset": 56}],
                "runtime.g.goid": [
                    {"from": "1.20", "to": "1.22.6", "offset": 152, "arch": "amd64"},
                    {"from": "1.20", "to": "1.20", "offset": 160, "arch": "arm64"},
                ],
            },
        },
        "golang.org/x/net": {
            "versions": ["v0.33.0", "v0.35.0"],
            "offsets": {
                "golang.org/x/net/http2.responseWriter.rws": [
                    {"from": "v0.33.0", "to": "v0.35.0", "offset": 0}
                ]
            },
        },
        "google.golang.org/grpc": {
            "versions": ["v1.60.0", "v1.60.2"],
            "offsets": {
                "google.golang.org/grpc.Server.opts": [{"from": "v1.60.0", "to": "v1.60.2", "offset": 8}]
            },
        },
    },
}


def table() -> Table:
    return parse(json.dumps(DOCUMENT).encode())


def built(go: str = "go1.22.4", *modules: BuildModule, main: BuildModule | None = None) -> BuildInfo:
    return BuildInfo(go, "example.com/app", main, modules, {})


METHOD = "net/http.Request.Method"
STATUS = "net/http.response.status"
RWS = "golang.org/x/net/http2.responseWriter.rws"
OPTS = "google.golang.org/grpc.Server.opts"


@pytest.mark.parametrize(
    ("go", "field", "arch", "listed"),
    [
        ("go1.20", METHOD, "amd64", Listed(0, "1.20", exact=True)),
        ("go1.20", METHOD, "arm64", Listed(0, "1.20", exact=True)),
        ("go1.22.1", STATUS, "amd64", Listed(120, "1.22.1", exact=True)),
        ("go1.22.4", STATUS, "arm64", Listed(128, "1.22.4", exact=True)),
        ("go1.20", "runtime.g.goid", "amd64", Listed(152, "1.20", exact=True)),
        ("go1.20", "runtime.g.goid", "arm64", Listed(160, "1.20", exact=True)),
        ("go1.21.0", "net/http.Request.pat", "amd64", None),
        ("go1.21.0", "net/http.Request.Nonsense", "amd64", None),
        ("go1.20", "runtime.g.goid", "riscv64", None),
    ],
)
def test_a_listed_version_is_answered_exactly(go: str, field: str, arch: str, listed: Listed | None) -> None:
    assert table().find(field, built(go), arch) == listed


@pytest.mark.parametrize(
    ("go", "field", "listed"),
    [
        # Between two patches that agree, and beyond the last one.
        ("go1.22.2", METHOD, Listed(0, "1.22.1", exact=False)),
        ("go1.22.7", METHOD, Listed(0, "1.22.6", exact=False)),
        ("go1.21.7", METHOD, Listed(0, "1.21.0", exact=False)),
        ("go1.20.1", STATUS, Listed(120, "1.20", exact=False)),
        ("go1.22.5", STATUS, Listed(128, "1.22.4", exact=False)),
        # Where it moved, nobody knows on which side.
        ("go1.22.2", STATUS, None),
        # A struct that was changed by a patch once may be again.
        ("go1.22.7", STATUS, None),
        ("go1.22.7", "net/http.response.w", None),
        ("go1.22.3", "net/http.response.w", Listed(56, "1.22.1", exact=False)),
        ("go1.22.3", "net/http.Request.pat", Listed(264, "1.22.1", exact=False)),
        # Across minor versions there are no neighbours.
        ("go1.23.0", METHOD, None),
        ("go1.19.13", METHOD, None),
        # Nor are these releases.
        ("go1.22rc1", METHOD, None),
        ("devel go1.23-0123456 linux/amd64", METHOD, None),
        ("go1.22.4 X:rangefunc", METHOD, None),
        ("go1.22.4 (Red Hat 1.22.4-1.el9)", METHOD, None),
    ],
)
def test_an_unlisted_patch_is_answered_by_its_neighbours(go: str, field: str, listed: Listed | None) -> None:
    assert table().find(field, built(go), "amd64") == listed


def test_a_version_without_the_field_is_no_reason_to_ask_its_neighbours() -> None:
    document = json.loads(json.dumps(DOCUMENT))
    document["modules"]["std"]["offsets"] = {
        METHOD: [
            {"from": "1.22.0", "to": "1.22.0", "offset": 0},
            {"from": "1.22.4", "to": "1.22.4", "offset": 0},
        ]
    }
    assert parse(json.dumps(document).encode()).find(METHOD, built("go1.22.1"), "amd64") is None


@pytest.mark.parametrize(
    ("module", "field", "listed"),
    [
        (BuildModule("golang.org/x/net", "v0.33.0", ""), RWS, Listed(0, "v0.33.0", exact=True)),
        (BuildModule("golang.org/x/net", "v0.33.1", ""), RWS, Listed(0, "v0.33.0", exact=False)),
        (BuildModule("golang.org/x/net", "v0.34.0", ""), RWS, None),
        (BuildModule("golang.org/x/net", "v0.33.1-0.20250101000000-0123456789ab", ""), RWS, None),
        (BuildModule("golang.org/x/net", "(devel)", ""), RWS, None),
        (BuildModule("golang.org/x/net", "", ""), RWS, None),
        (BuildModule("golang.org/x/text", "v0.33.0", ""), RWS, None),
        # A replacement counts, if it is the same module.
        (
            BuildModule("golang.org/x/net", "v0.1.0", "", BuildModule("golang.org/x/net", "v0.35.0", "")),
            RWS,
            Listed(0, "v0.35.0", exact=True),
        ),
        (
            BuildModule("golang.org/x/net", "v0.33.0", "", BuildModule("example.com/net", "v0.33.0", "")),
            RWS,
            None,
        ),
        (BuildModule("golang.org/x/net", "v0.33.0", "", BuildModule("../net", "", "")), RWS, None),
        # This one's patches move fields.
        (BuildModule("google.golang.org/grpc", "v1.60.2", ""), OPTS, Listed(8, "v1.60.2", exact=True)),
        (BuildModule("google.golang.org/grpc", "v1.60.1", ""), OPTS, None),
    ],
)
def test_modules_are_looked_up_by_the_version_that_was_built(
    module: BuildModule, field: str, listed: Listed | None
) -> None:
    assert table().find(field, built("go1.22.4", module), "amd64") == listed


def test_a_module_may_be_the_main_one() -> None:
    info = built("go1.24.0", main=BuildModule("golang.org/x/net", "v0.35.0", ""))
    assert version_in("golang.org/x/net", info) == "v0.35.0"
    assert version_in("std", info) == "1.24.0"


def test_written_and_read_again_it_is_the_same() -> None:
    once = table().dump()
    assert parse(once.encode()) == table()
    assert parse(once.encode()).dump() == once
    fastjsonschema.compile(SCHEMA)(json.loads(once))


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(json.dumps(DOCUMENT))
    change(document)
    return json.dumps(document).encode()


def std(document: dict[str, Any]) -> dict[str, Any]:
    module: dict[str, Any] = document["modules"]["std"]
    return module


def ranges(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = std(document)["offsets"][STATUS]
    return found


# What the JSON schema forbids as well, and what it can't express.
WRONG_FORM: dict[str, Callable[[dict[str, Any]], object]] = {
    "no schema": lambda table: table.pop("schema"),
    "schema is no number": lambda table: table.update(schema="1"),
    "schema is a truth": lambda table: table.update(schema=True),
    "another schema": lambda table: table.update(schema=2),
    "no date": lambda table: table.pop("generated"),
    "another kind of date": lambda table: table.update(generated="22 Nov 2026"),
    "no modules": lambda table: table.pop("modules"),
    "modules are a list": lambda table: table.update(modules=[]),
    "an unknown member": lambda table: table.update(signature="x"),
    "a module is a list": lambda table: table["modules"].update(std=[]),
    "an unknown member of a module": lambda table: std(table).update(versons=[]),
    "no versions": lambda table: std(table).pop("versions"),
    "a version is a number": lambda table: std(table)["versions"].append(1.23),
    "a version is none": lambda table: std(table)["versions"].append("latest"),
    "a reason is none": lambda table: std(table)["unavailable"].update({"1.22.3": 3}),
    "no offsets": lambda table: std(table).pop("offsets"),
    "no ranges": lambda table: std(table)["offsets"].update({STATUS: 120}),
    "a range is a number": lambda table: std(table)["offsets"].update({STATUS: [120]}),
    "a range without end": lambda table: ranges(table)[0].pop("to"),
    "a range without offset": lambda table: ranges(table)[0].pop("offset"),
    "an offset is negative": lambda table: ranges(table)[0].update(offset=-1),
    "an offset is enormous": lambda table: ranges(table)[0].update(offset=1 << 40),
    "an offset is a fraction": lambda table: ranges(table)[0].update(offset=120.5),
    "an unknown architecture": lambda table: ranges(table)[0].update(arch="vax"),
    "an unknown member of a range": lambda table: ranges(table)[0].update(until="1.22"),
}
WRONG_SENSE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a month too many": lambda table: table.update(generated="2026-13-01T00:00:00Z"),
    "versions out of order": lambda table: std(table)["versions"].reverse(),
    "a version twice": lambda table: std(table)["versions"].insert(0, "1.20"),
    "arm64 is of another version": lambda table: std(table)["arm64"].append("1.25.0"),
    "a range of unknown versions": lambda table: ranges(table)[0].update({"from": "1.19"}),
    "a range backwards": lambda table: ranges(table)[0].update({"from": "1.22.1", "to": "1.20"}),
}


@pytest.mark.parametrize("what", [*WRONG_FORM, *WRONG_SENSE])
def test_a_damaged_table_is_refused_as_a_whole(what: str) -> None:
    data = changed({**WRONG_FORM, **WRONG_SENSE}[what])
    with pytest.raises(
        TableError, match=r"is damaged|schema 2, and this gospan reads schema 1; a newer gospan"
    ):
        parse(data)


def test_the_json_schema_forbids_the_same() -> None:
    validate = fastjsonschema.compile(SCHEMA)
    validate(DOCUMENT)
    for what, change in WRONG_FORM.items():
        with pytest.raises(fastjsonschema.JsonSchemaException):
            validate(json.loads(changed(change)))
            pytest.fail(what)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b"\0" * 64])
def test_what_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(TableError, match="is damaged"):
        parse(data)


def test_every_cut_of_a_table_is_refused() -> None:
    data = table().dump().rstrip().encode()
    for end in range(len(data)):
        with pytest.raises(TableError, match="is damaged"):
            parse(data[:end])


def test_loading_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "offsets.json"
    with pytest.raises(TableError, match=f"{path}: No such file"):
        load(path)
    path.write_text("{}")
    with pytest.raises(TableError, match=f"{path}: is damaged"):
        load(path)
    with path.open("wb") as file:
        file.truncate(20 << 20)
    with pytest.raises(TableError, match=f"{path}: has more than 16 MiB"):
        load(path)
    with pytest.raises(TableError, match=f"{tmp_path}: Is a directory"):
        load(tmp_path)
    path.write_text(table().dump())
    assert load(path) == table()


def test_a_table_file_is_read_when_it_is_first_asked(tmp_path: Path) -> None:
    path = tmp_path / "offsets.json"
    complaints: list[TableError] = []
    file = TableFile(path, complaints.append)
    path.write_text(table().dump())
    assert file.find(METHOD, built("go1.20"), "amd64") == Listed(0, "1.20", exact=True)
    path.unlink()
    assert file.find(METHOD, built("go1.20"), "amd64") == Listed(0, "1.20", exact=True)
    assert complaints == []


def test_a_damaged_table_file_is_told_once_and_has_no_answers(tmp_path: Path) -> None:
    complaints: list[TableError] = []
    file = TableFile(tmp_path / "offsets.json", complaints.append)
    assert complaints == []
    assert [file.find(METHOD, built("go1.20"), "amd64") for _ in range(3)] == [None] * 3
    assert [str(one) for one in complaints] == [
        f"{tmp_path}/offsets.json: No such file or directory; it is made by `gospan offsets build`"
    ]
