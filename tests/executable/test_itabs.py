"""Itabs and names of types, against the symbols `go:itab.*` that releases before 1.27 leave in the twin."""

import re
from itertools import pairwise

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from agent.executable import Executable
from tests.support import golang
from tests.support.golang import VERSIONS


def _plain(name: str) -> str:
    """Without the linker's escapes, and the numbers it gives to types that functions declare."""
    return re.sub(r"(·|\.)\d+$", "", name.replace("%2e", "."))


def itab_symbols(go: str) -> dict[int, tuple[str, str]]:
    with golang.build("allstd", go=go, mode="plain").open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        found = {}
        for symbol in table.iter_symbols():
            match = re.match(r"go[:.]itab\.(.*),([^,]*)$", symbol.name)
            if match:
                found[symbol["st_value"]] = (_plain(match[1]), _plain(match[2]))
    return found


@pytest.mark.parametrize("go", [go for go in VERSIONS if go != "1.27.4"])
def test_every_itab(go: str) -> None:
    symbols = itab_symbols(go)
    with Executable(str(golang.build("allstd", go=go, mode="strip"))) as executable:
        found = executable.itabs()
        few = executable.itabs({"io.Writer", "net.Conn"})
    assert few == {at: itab for at, itab in found.items() if itab.interface in ("io.Writer", "net.Conn")}
    assert len(few) > 20
    assert found.keys() == symbols.keys()
    wrong = [(itab, symbols[at]) for at, itab in found.items() if (itab.type, itab.interface) != symbols[at]]
    # An interface without a name is spelled with package paths by the linker, with names by the runtime.
    assert [pair for pair in wrong if "interface {" not in pair[0].interface] == []
    assert len(found) > 400


def test_itabs_of_the_newest_release() -> None:
    with Executable(str(golang.build("allstd", mode="strip"))) as executable:
        itabs = executable.itabs()
        assert len(itabs) > 600
        pairs = {(itab.type, itab.interface) for itab in itabs.values()}
        assert {
            ("*net/http.response", "net/http.ResponseWriter"),
            ("*errors.errorString", "error"),
            ("net/http.HandlerFunc", "net/http.Handler"),
            ("*net.TCPConn", "net.Conn"),
        } <= pairs
        addresses = sorted(itabs)
        assert all(b - a >= 32 for a, b in pairwise(addresses))


@pytest.mark.parametrize("go", VERSIONS)
def test_type_names(go: str) -> None:
    with Executable(str(golang.build("allstd", go=go))) as executable:
        image = executable._image
        names = {executable.type_name(image.word(address + 8)) for address in executable.itabs()}
        assert {"*net/http.http1Transport", "*os.File", "net/http.HandlerFunc", "main.noDriver"} - names <= {
            "*net/http.http1Transport"
        }
        for address in (0, 1, 8, 1 << 47, 1 << 63, -8):
            assert executable.type_name(address) is None
