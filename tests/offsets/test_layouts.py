"""Reading a program's layouts from both sources, and noticing where they differ."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from agent.executable import Executable, MapGeometry, field_offset
from agent.offsets.dwarf import Dwarf
from agent.offsets.fields import Wanted
from agent.offsets.layouts import DisagreementError, Layouts, read_layouts
from tests.support import golang
from tests.support.golang import NEWEST, VERSIONS


def wanted(*names: str) -> Wanted:
    return Wanted(
        frozenset(name for name in names if ":" not in name), frozenset(name for name in names if ":" in name)
    )


@pytest.fixture(scope="session")
def newest() -> Layouts:
    return read_layouts(golang.build("http_server", go=NEWEST, mode="plain"))


@pytest.mark.parametrize("go", VERSIONS)
def test_both_sources_agree_on_every_struct_and_map(go: str) -> None:
    path = golang.build("http_server", go=go, mode="plain")
    layouts = read_layouts(path)
    with Executable(str(path)) as executable:
        every = {struct.name for struct in executable.all_structs()}
        geometry = executable.map_geometry("net/http.Header")
    # The compiler leaves out of DWARF what no variable has; that is a handful.
    assert len(every - layouts.structs.keys()) <= len(every) // 25
    assert len(layouts.structs) > 500
    assert layouts.maps.get("net/http.Header") == geometry
    assert (geometry is None) == (go < "1.24")


def test_arm64_is_read_as_well() -> None:
    layouts = read_layouts(golang.build("http_server", go=NEWEST, arch="arm64", mode="plain"))
    assert field_offset(layouts.structs, "net/http.Request.Method") == 0
    assert layouts.maps["net/http.Header"] == MapGeometry(328, 8, 8, 40, 24, 40)


def test_what_neither_source_has_is_missing(newest: Layouts) -> None:
    names = ("net/http.Request.Method", "net/http.Request.Nonsense", "net/nonsense.T.f", "runtime.hmap.B")
    assert newest.offsets(wanted(*names, "net/http.Header:group_size", "net/nonsense.M:slots")) == {
        "net/http.Request.Method": 0,
        "net/http.Header:group_size": 328,
    }


def test_paths_lead_through_structs_by_value(newest: Layouts) -> None:
    assert newest.offsets(wanted("internal/runtime/maps.table.groups.lengthMask")) == {
        "internal/runtime/maps.table.groups.lengthMask": 24
    }


def test_a_type_that_one_source_lacks_is_refused(newest: Layouts) -> None:
    # Not one of those that only the compiler names, such as `map<string,net/http.muxEntry>`.
    only_dwarf = min(
        name
        for name, source in newest.unconfirmed.items()
        if source == "DWARF" and re.fullmatch(r"[\w/]+\.\w+", name)
    )
    with pytest.raises(DisagreementError, match="only the DWARF has the type"):
        newest.offsets(wanted(f"{only_dwarf}.anything"))
    with pytest.raises(DisagreementError, match="only the type information has the type"):
        Layouts({}, {}, {"net/http.Header": "type information"}).offsets(wanted("net/http.Header:slots"))


def test_a_struct_without_fields_has_nothing_to_confirm(newest: Layouts) -> None:
    path = golang.build("http_server", go=NEWEST, mode="plain")
    with path.open("rb") as file, Executable(str(path)) as executable:
        dwarf = Dwarf(file)
        described = {struct.name for struct in executable.all_structs()}
    empty = {name for name in dwarf.names - described if dwarf.is_empty(name)}
    assert empty
    assert empty.isdisjoint(newest.unconfirmed)


def test_dumped_and_loaded_they_are_the_same(newest: Layouts) -> None:
    again = Layouts.load(newest.dump())
    assert again.dump() == newest.dump()
    assert again.maps == newest.maps
    assert again.structs.keys() == newest.structs.keys()
    for name, struct in newest.structs.items():
        for field in struct.fields:
            assert again.structs[name].offset(field) == struct.offset(field)


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x1f\x8b", Layouts({}, {}, {}).dump()[:-4]])
def test_damaged_dumps_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not the layouts of a program"):
        Layouts.load(data)


def test_a_disagreement_is_noticed(tmp_path: Path) -> None:
    """A member's location in the DWARF is moved by a word: one byte of a whole program."""
    path = tmp_path / "program"
    source = golang.build("http_server", go="1.24.13", mode="plain", ldflags=["-compressdwarf=false"])
    shutil.copy(source, path)
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".debug_info")
        assert section is not None
        data = section.data()
        # A DW_TAG_member begins with its name, and its location follows (cmd/internal/dwarf: DW_ABRV_STRUCTFIELD).
        at = data.index(b"RequestURI\0") + len(b"RequestURI\0")
        start = section["sh_offset"]
    assert data[at : at + 2] == bytes([0xC0, 0x01])  # 192, as uleb128
    with path.open("r+b") as file:
        file.seek(start + at)
        file.write(bytes([0xC8, 0x01]))
    with pytest.raises(DisagreementError, match=r"net/http\.Request: type information has .* DWARF has "):
        read_layouts(path)


def test_a_program_without_dwarf_says_so() -> None:
    path = golang.build("http_server", go=NEWEST, mode="stripped")
    with path.open("rb") as file, pytest.raises(ValueError, match="has no DWARF"):
        Dwarf(file)
