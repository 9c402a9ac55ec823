"""Moduledata of releases that aren't known: it must describe itself, and to the same effect."""

from pathlib import Path

import pytest

from agent.executable import Executable, UnsupportedError, moduledata
from agent.executable.elf import Image
from agent.executable.pclntab import find_pclntab
from agent.executable.source import Source
from tests.support import golang
from tests.support.golang import NEWEST, VERSIONS


def patched_version(program: Path, target: Path, go: str) -> Path:
    """A copy of `program` that says it was built by a release to come."""
    old = f"go{go}".encode()
    data = program.read_bytes()
    new = b"go1.99." + b"9" * (len(old) - 7)
    assert old in data
    target.write_bytes(data.replace(old, new))
    return target


@pytest.mark.parametrize("mode", ["stripped", "no-sections"])
@pytest.mark.parametrize("go", VERSIONS)
def test_an_unknown_release_gives_the_same_answers(go: str, mode: str, tmp_path: Path) -> None:
    program = golang.build("allstd", go=go, mode=mode)
    wanted = ["net/http.serverHandler.ServeHTTP", "runtime.newproc1"]
    with (
        Executable(str(program)) as known,
        Executable(str(patched_version(program, tmp_path / "new", go))) as new,
    ):
        assert new.build_info.go_version.startswith("go1.99.")
        assert known.known_layout
        assert not new.known_layout
        assert new.functions(wanted) == known.functions(wanted)
        assert new.all_structs() == known.all_structs()
        assert new.itabs() == known.itabs()
        assert new.map_geometry("net/http.Header") == known.map_geometry("net/http.Header")


@pytest.mark.parametrize("go", VERSIONS)
def test_every_known_layout_is_what_the_program_says_of_itself(go: str) -> None:
    with Source(str(golang.build("allstd", go=go))) as source:
        image = Image(source)
        table = next(find_pclntab(image))
        minor = int(go.split(".")[1])
        found = moduledata.find_moduledata(image, table, minor)
        assert found is not None
        words = [image.word(found.address + 8 * index) for index in range(62)]
        assert moduledata.describe(image, tuple(words)) == moduledata.KNOWN[minor]


@pytest.mark.parametrize("wrong", [19, 23, 26])
def test_a_wrong_release_is_noticed(wrong: int) -> None:
    """A fork may move words without changing its version: what doesn't fit is read by self-description."""
    with Source(str(golang.build("allstd", go=NEWEST))) as source:
        image = Image(source)
        found = moduledata.find_moduledata(image, next(find_pclntab(image)), wrong)
        right = moduledata.find_moduledata(image, next(find_pclntab(image)), 27)
    assert found is not None
    assert right is not None
    assert (found.types, found.text) == (right.types, right.text)


def test_an_unknown_release_without_types_is_refused_in_words(tmp_path: Path) -> None:
    program = patched_version(golang.build("allstd", go=NEWEST), tmp_path / "new", NEWEST)
    program.write_bytes(program.read_bytes().replace(b"*runtime.moduledata", b"*runtime.modulexxxx"))
    with Executable(str(program)) as executable, pytest.raises(UnsupportedError, match="update the agent"):
        executable.structs(["net/http.Request"])
    with Executable(str(program)) as executable, pytest.raises(UnsupportedError, match=str(program)):
        executable.functions(["main.main"])
