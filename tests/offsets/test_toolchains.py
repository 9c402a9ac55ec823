"""Getting toolchains and building, where it goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.offsets.layouts import read_layouts
from agent.offsets.programs import PROGRAMS, Program
from agent.offsets.toolchains import GoError, Toolchains, UnavailableError, build, remove_tree

X_NET = next(one for one in PROGRAMS if one.module == "golang.org/x/net")


def test_a_release_that_is_not_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"^the toolchain can't be had: "):
        Toolchains(tmp_path / "toolchains").get("1.27.99")


def test_a_version_of_a_module_that_does_not_exist(tmp_path: Path) -> None:
    go = Toolchains(tmp_path / "toolchains").get("1.27.4")
    with pytest.raises(UnavailableError, match=r"golang\.org/x/net@v0\.999\.0"):
        build(X_NET, "v0.999.0", go, tmp_path / "program", arch="amd64", modules=tmp_path / "modules")
    assert {path.name for path in tmp_path.iterdir()} <= {"modules"}


def test_a_version_that_wants_a_newer_go_is_told_from_a_network_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = Toolchains(tmp_path / "toolchains").get("1.21.13")
    with pytest.raises(UnavailableError, match=r"^go: golang\.org/x/net@v0\.62\.0 requires go >= 1\.26\.0"):
        build(X_NET, "v0.62.0", go, tmp_path / "program", arch="amd64", modules=tmp_path / "modules")
    monkeypatch.setenv("GOPROXY", "http://127.0.0.1:1")
    with pytest.raises(GoError, match="dial tcp"):
        build(X_NET, "v0.62.0", go, tmp_path / "program", arch="amd64", modules=tmp_path / "other")


class Broken(Program):
    """A program whose source is given here."""

    @property
    def sources(self) -> dict[str, bytes]:
        return {"main.go": b"package main\n\nfunc main() {\n\tundefined()\n}\n"}


def test_what_does_not_compile_is_told_in_the_compilers_words(tmp_path: Path) -> None:
    go = Toolchains(tmp_path / "toolchains").get("1.27.4")
    with pytest.raises(UnavailableError, match=r"^\./main\.go:4:2: undefined: undefined$"):
        build(
            Broken(module="std", since="1.19"),
            "1.27.4",
            go,
            tmp_path / "program",
            arch="amd64",
            modules=tmp_path / "modules",
        )


class Small(Program):
    """A program that reaches nothing of what is wanted."""

    @property
    def sources(self) -> dict[str, bytes]:
        return {"main.go": b"package main\n\nfunc main() {}\n"}


def test_the_environment_has_no_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for everyday builds would strip the program, change its layouts, or build another one."""
    for name, value in {
        "GOFLAGS": "-ldflags=-w -tags=nothing",
        "GOARCH": "arm",
        "GOOS": "windows",
        "GOEXPERIMENT": "nonsense",
        "GOTOOLCHAIN": "go1.2",
        "GOWORK": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    go = Toolchains(tmp_path / "toolchains").get("1.27.4")
    build(
        Small(module="std", since="1.19"),
        "1.27.4",
        go,
        tmp_path / "program",
        arch="arm64",
        modules=tmp_path / "modules",
    )
    layouts = read_layouts(tmp_path / "program")
    assert layouts.structs["runtime.g"].offset("goid") == 152
    assert "net/http.Request" not in layouts.structs


def test_what_go_makes_read_only_is_removed(tmp_path: Path) -> None:
    inner = tmp_path / "modules" / "m@v1" / "p"
    inner.mkdir(parents=True)
    (inner / "file").write_text("")
    for path in (inner / "file", inner, inner.parent):
        path.chmod(0o555 if path.is_dir() else 0o444)
    remove_tree(tmp_path / "modules")
    assert not (tmp_path / "modules").exists()
    remove_tree(tmp_path / "modules")
