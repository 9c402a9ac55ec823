"""Every way a Go program is linked and stripped must give what its twin with symbols has."""

from functools import cache

import pytest

from agent.executable import Executable
from tests.executable import truth
from tests.executable.test_pclntab import assert_functions_true
from tests.executable.test_structs import assert_all_true
from tests.support import golang
from tests.support.golang import MODES, NEWEST, VERSIONS

OLDEST = VERSIONS[0]
CASES = (
    [(NEWEST, "amd64", mode) for mode in MODES]
    + [(OLDEST, "amd64", mode) for mode in ("stripped", "external-strip", "pie-strip", "pie-empty-targets")]
    + [(NEWEST, "arm64", mode) for mode in ("stripped", "no-sections", "pie-stripped", "pie-no-sections")]
    + [(OLDEST, "arm64", mode) for mode in ("stripped", "no-sections")]
)


@cache
def structs_by_name(go: str, arch: str, cgo: bool) -> dict[str, set[truth.Layout]]:
    """Layouts don't depend on how a program is linked, so one twin's DWARF serves all modes."""
    return truth.structs(
        golang.build("allstd", go=go, arch=arch, mode="external" if cgo else "plain", tags=["small"])
    )


@pytest.mark.parametrize(("go", "arch", "mode"), CASES)
def test_mode(go: str, arch: str, mode: str) -> None:
    program = golang.build("allstd", go=go, arch=arch, mode=mode, tags=["small"])
    link = golang.twin_of(mode)
    external = "external" in mode or "gold" in mode or "relr" in mode
    with Executable(str(program)) as executable:
        assert executable.arch == arch
        assert executable.pie == ("pie" in mode)
        assert executable.known_layout
        assert executable.build_info.go_version == f"go{go}"
        assert executable.build_info.path == "example.com/allstd"
        assert executable.build_id.count("/") == 3 or external
        found = executable.all_structs()
        itabs = executable.itabs()
        place = executable.entry_place(
            executable.functions(["net/http.serverHandler.ServeHTTP"])["net/http.serverHandler.ServeHTTP"][0]
        )
    assert_all_true(found, structs_by_name(go, arch, external), at_least=400)
    assert_functions_true(program, golang.build("allstd", go=go, arch=arch, mode=link, tags=["small"]), go)
    assert any(
        itab.type == "*net/http.response" and itab.interface == "net/http.ResponseWriter"
        for itab in itabs.values()
    )
    assert place.emulated
