"""Functions, against `go tool nm -size` of the same program's twin with symbols."""

from pathlib import Path

import pytest

from agent.executable import Executable, ExecutableError, pclntab
from tests.executable import truth
from tests.support import golang
from tests.support.golang import VERSIONS

MAX_PADDING = 64


def assert_functions_true(program: Path, twin: Path, go: str, *, every: int = 40) -> None:
    """A spread of the functions has the addresses and, but for the padding behind them, the sizes that nm says."""
    symbols: dict[str, list[truth.Symbol]] = {}
    for symbol in truth.functions(twin, go):
        if not symbol.name.startswith(("runtime.text", "runtime.etext", "_", "go:", "go.")) and symbol.size:
            symbols.setdefault(symbol.name.removesuffix(".abi0"), []).append(symbol)
    wanted = [
        *sorted(symbols)[::every],
        "main.main",
        "net/http.serverHandler.ServeHTTP",
        "net/http.(*conn).serve",
    ]
    with Executable(str(program)) as executable:
        found = executable.functions([*wanted, "net/http.nonsense", "ServeHTTP", ""])
        text = [segment for segment in executable.segments if segment.executable]
    data = program.read_bytes()
    missing = [name for name in wanted if name not in found and not name.startswith(("type:", "type."))]
    assert len(missing) <= len(wanted) // 50, (
        missing
    )  # C code and assembler labels have no place in Go's table
    assert found.keys() <= set(wanted)
    checked = 0
    for name, functions in found.items():
        true = {symbol.address: symbol.size for symbol in symbols[name]}
        for function in functions:
            if function.name != name:
                assert function.name.endswith(f"vendor/{name}")
                continue
            assert function.address in true, name
            padding = function.size - true[function.address]
            assert 0 <= padding < MAX_PADDING, name
            body = data[function.file_offset : function.file_offset + function.size]
            assert set(body[function.size - padding :]) <= {0xCC, 0}
            assert any(s.address <= function.address < s.end for s in text)
            checked += 1
        if len(true) == 2 and "[...]" not in name and len(functions) == 1:
            assert true[functions[0].address] == max(true.values()), f"{name}: the wrapper was taken"
    assert checked >= min(200, len(wanted) - 10)


@pytest.mark.parametrize("go", VERSIONS)
def test_functions_of_the_standard_library(go: str) -> None:
    assert_functions_true(
        golang.build("allstd", go=go, mode="strip"), golang.build("allstd", go=go, mode="plain"), go
    )


@pytest.mark.parametrize("go", VERSIONS)
def test_names_are_the_linkers(go: str) -> None:
    wanted = ["example.com/allstd/dotted%2ev3.(*Node).Parse", "golang.org/x/net/http2/hpack.(*Decoder).Write"]
    with Executable(str(golang.build("allstd", go=go))) as executable:
        found = executable.functions(wanted)
    assert {name: [function.name for function in functions] for name, functions in found.items()} == {
        wanted[0]: [wanted[0]],
        wanted[1]: [f"vendor/{wanted[1]}"],
    }


_ENCODER = b"x/net/http2/hpack.(*Encoder).WriteField\0"


@pytest.mark.parametrize(
    ("directory", "is_copy"),
    [
        (b"vendor/golang.org/", False),
        (b"vendor/abc/vendor/", True),
        (b"abcdefghij/vendor/", True),
        (b"abcdefghijkvendor/", False),
    ],
)
def test_a_copy_is_what_stands_in_the_last_directory_called_vendor(
    tmp_path: Path, directory: bytes, *, is_copy: bool
) -> None:
    data = golang.build("allstd", mode="strip").read_bytes()
    assert data.count(b"\0vendor/golang.org/" + _ENCODER) == 1
    program = tmp_path / "program"
    program.write_bytes(data.replace(b"\0vendor/golang.org/" + _ENCODER, b"\0" + directory + _ENCODER))
    wanted = _ENCODER[:-1].decode()
    with Executable(str(program)) as executable:
        found = executable.functions([wanted])
    assert [one.name for one in found.get(wanted, ())] == [directory.decode() + wanted] * is_copy


def test_more_names_than_any_program_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pclntab, "_MAX_NAME_COUNT", 1000)
    with (
        Executable(str(golang.build("allstd", mode="strip"))) as executable,
        pytest.raises(ExecutableError, match="more function names than any real program"),
    ):
        executable.functions(["main.main"])
