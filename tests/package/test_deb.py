"""What is in the package, and that it is the same whenever it is made."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from agent import __version__
from agent.config.settings import settings
from agent.paths import architecture
from package import deb
from package.tree import Release
from package.wheels import PYTHONS
from tests.package.conftest import EPOCH


@pytest.fixture(scope="module")
def contents(debs: Sequence[Path]) -> dict[str, str]:
    """Mode and owner of each file of the package, by path."""
    listing = subprocess.run(
        ["dpkg-deb", "--contents", debs[0]], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.split(maxsplit=5) for line in listing.splitlines()]
    return {words[5].removeprefix("."): f"{words[0]} {words[1]}" for words in lines}


@pytest.fixture(scope="module")
def tree(debs: Sequence[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked."""
    root = tmp_path_factory.mktemp("tree")
    subprocess.run(["dpkg-deb", "--extract", debs[0], root], check=True)
    return root


def test_files_lie_where_they_belong(contents: dict[str, str]) -> None:
    assert contents["/usr/bin/gospan"] == "-rwxr-xr-x root/root"
    assert contents["/etc/gospan/config.toml"] == "-rw-r----- root/root"
    assert contents["/etc/gospan/conf.d/"] == "drwxr-x--- root/root"
    for path in (
        "/usr/lib/systemd/system/gospan.service",
        "/usr/lib/sysusers.d/gospan.conf",
        "/usr/share/gospan/offsets.json",
        "/usr/share/doc/gospan/copyright",
        "/usr/share/man/man1/gospan.1.gz",
    ):
        assert contents[path] == "-rw-r--r-- root/root"
    # Nothing that was needed to build, and nobody's caches.
    assert not [path for path in contents if re.search(r"/setuptools/|__pycache__|\.pth$|/tests?/", path)]


def test_every_python_finds_its_modules(contents: dict[str, str]) -> None:
    """Extension modules are there for each Python, or for all of them at once."""
    kinds: dict[str, set[str]] = {}
    for path in contents:
        if found := re.search(r"/([^/]+)\.cpython-3(\d+)-[^/]*\.so$", path):
            kinds.setdefault(found[1], set()).add(f"3.{found[2]}")
    assert kinds
    assert all(pythons == set(PYTHONS) for pythons in kinds.values()), kinds


def test_program_runs_from_its_own_libraries(tree: Path) -> None:
    """Under the system's Python, with the libraries of the package and no others."""
    home = tree / "usr/lib/gospan"
    code = (
        f"import sys; sys.path[:0] = [{str(home)!r}, {str(home / 'packages')!r}]\n"
        "import agent.start, agent.cli, grpc, google.protobuf, pkgutil\n"
        "for one in pkgutil.walk_packages(agent.__path__, 'agent.'):\n"
        "    one.name.endswith('__main__') or __import__(one.name)\n"
        "print(agent.cli.__file__, grpc.__file__, google.protobuf.__file__)"
    )
    done = subprocess.run(["/usr/bin/python3", "-IS", "-c", code], capture_output=True, text=True, check=True)
    assert all(path.startswith(str(home)) for path in done.stdout.split())


def test_package_is_reproducible(debs: Sequence[Path], tmp_path: Path) -> None:
    former = os.umask(0o077)
    try:
        again = deb.build(Release(architecture(), __version__, EPOCH), tmp_path)
    finally:
        os.umask(former)
    assert sha256(again.read_bytes()).digest() == sha256(debs[0].read_bytes()).digest()


def test_manual_pages_are_complete(tree: Path) -> None:
    """man(1) has nothing to complain of, and every setting is there."""
    for name in ("man1/gospan.1", "man5/gospan.toml.5"):
        page = tree / f"usr/share/man/{name}.gz"
        done = subprocess.run(
            ["man", "--warnings", "-l", page],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MANWIDTH": "100", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8"},
        )
        assert done.stderr == ""
        if name.startswith("man5"):
            missing = [one.path for one in settings() if not re.search(rf"(?m)^ +{one.name}\b", done.stdout)]
            assert not missing
        else:
            assert "gospan check" in done.stdout
            assert "checkout" not in done.stdout and str(Path.cwd()) not in done.stdout


def test_bash_completes_commands_and_options(tree: Path) -> None:
    script = tree / "usr/share/bash-completion/completions/gospan"
    ask = (
        f". {script}; COMP_WORDS=(gospan check --qu); COMP_CWORD=2; "
        "_shtab_gospan gospan --qu check; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--quiet"]


def test_maintainer_scripts_are_valid(debs: Sequence[Path], tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--control", debs[0], tmp_path], check=True)
    for name in ("postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", tmp_path / name], check=True)
        assert "UNITS" not in (tmp_path / name).read_text()
    assert (tmp_path / "conffiles").read_text() == "/etc/gospan/config.toml\n"
