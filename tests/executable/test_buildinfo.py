"""Build info, against `go version -m`."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.executable import BuildInfo, Executable, Module, NotGoError, UnsupportedError
from agent.executable.buildinfo import parse_module_text
from tests.support import golang
from tests.support.golang import NEWEST, VERSIONS


def printed(info: BuildInfo) -> list[str]:
    """As `go version -m` prints it."""
    lines = [f"\tpath\t{info.path}"]

    def add(word: str, module: Module) -> None:
        lines.append(
            "\t".join(["", word, module.path, module.version, *([module.sum] if module.sum else [])])
        )
        if module.replaced_by:
            add("=>", module.replaced_by)

    if info.main:
        add("mod", info.main)
    for module in info.dependencies:
        add("dep", module)
    return lines + [f"\tbuild\t{key}={value}" for key, value in info.settings.items()]


@pytest.mark.parametrize("mode", ["plain", "no-sections"])
@pytest.mark.parametrize("go", VERSIONS)
def test_build_info_is_what_go_version_prints(go: str, mode: str) -> None:
    program = golang.build("allstd", go=go, mode=mode)
    with Executable(str(program)) as executable:
        info = executable.build_info
    twin = golang.build("allstd", go=go, mode="plain")  # the go command can't read a program without sections
    head, *lines = golang.go_tool("version", "-m", str(twin)).rstrip("\n").split("\n")
    assert head == f"{twin}: {info.go_version}"
    lines = [line for line in lines if "-ldflags" not in line]
    info = replace(info, settings={key: value for key, value in info.settings.items() if key != "-ldflags"})
    assert [line.replace('"', "").rstrip("\t") for line in lines] == [
        line.rstrip("\t") for line in printed(info)
    ]
    assert info.minor == int(go.split(".")[1])


def test_replaced_modules_keep_both_names(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "app" / "go.mod").write_text(
        "module example.com/app\ngo 1.19\nrequire example.com/lib v1.2.3\nreplace example.com/lib => ../lib\n"
    )
    (tmp_path / "app" / "main.go").write_text(
        'package main\nimport "example.com/lib"\nfunc main() { lib.F() }\n'
    )
    (tmp_path / "lib" / "go.mod").write_text("module example.com/lib\ngo 1.19\n")
    (tmp_path / "lib" / "lib.go").write_text("package lib\nfunc F() {}\n")
    with Executable(str(golang.build(tmp_path / "app", ldflags=["-X", "main.x=a b"]))) as executable:
        info = executable.build_info
    assert info.dependencies == (Module("example.com/lib", "v1.2.3", "", Module("../lib", "(devel)", "")),)
    assert info.main == Module("example.com/app", "(devel)", "")
    assert info.settings["-ldflags"].endswith("-s -w")
    assert "main.x=a b" in info.settings["-ldflags"]


def test_module_text() -> None:
    text = (
        "path\tcmd/x\nmod\texample.com/m\tv1.0.0\th1:abc=\n=>\texample.com/fork\tv1.0.1\th1:def=\n"
        'dep\ta.b/c\tv0.1.0\t\nbuild\tCGO_CFLAGS="-O2 \\"q\\" \\x41\\u00e9\\n"\n'
        'build\t"odd key"=`raw "x"`\nbuild\tplain=a=b\n'
        "nonsense\n\n=>\t\n"
    )
    info = parse_module_text("go1.27.4", b"m" * 16 + text.encode() + b"\n" + b"e" * 16)
    assert info.main == Module(
        "example.com/m", "v1.0.0", "h1:abc=", Module("example.com/fork", "v1.0.1", "h1:def=")
    )
    assert info.dependencies == (Module("a.b/c", "v0.1.0", "", Module("", "", "")),)
    assert info.settings == {"CGO_CFLAGS": '-O2 "q" Aé\n', "odd key": 'raw "x"', "plain": "a=b"}


@pytest.mark.parametrize(
    ("version", "minor"),
    [
        ("go1.27.4", 27),
        ("go1.28rc1", 28),
        ("devel go1.29-4c5f7a2", 29),
        ("go1.25.5 X:nodwarf5", 25),
        ("devel +abc", None),
    ],
)
def test_minor_release(version: str, minor: int | None) -> None:
    assert parse_module_text(version, b"").minor == minor


def test_a_program_without_build_info_is_no_go_program() -> None:
    with pytest.raises(NotGoError, match="/bin/true: has no Go build info"):
        Executable("/bin/true")


def test_build_info_of_old_releases_is_refused_by_name(tmp_path: Path) -> None:
    data = bytearray(golang.build("allstd", go=NEWEST, tags=["small"]).read_bytes())
    at = data.index(b"\xff Go buildinf:")
    while at % 16:
        at = data.index(b"\xff Go buildinf:", at + 1)
    data[at + 15] = 0
    (tmp_path / "old").write_bytes(data)
    with pytest.raises(UnsupportedError, match=r"Go before 1\.18"):
        Executable(str(tmp_path / "old"))
