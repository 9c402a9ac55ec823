import subprocess
from pathlib import Path

import pytest

from tests.vm import archive
from tests.vm.tools import VmError

DEB822 = """\
# see sources.list(5)
Types: deb
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
"""


@pytest.mark.parametrize(
    ("sources", "mirror"),
    [
        (DEB822, "http://mirror.example/debian"),
        ("deb http://mirror.example/debian bookworm main\n", "http://mirror.example/debian"),
        (
            "deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/d trixie main\n",
            "https://mirror.example/d",
        ),
        ("#deb http://old.example/debian bookworm main\n", None),
        ("deb-src http://mirror.example/debian bookworm main\n", None),
        ("deb http://security.example/debian-security bookworm-security main\n", None),
        ("deb http://archive.example/ubuntu noble main\n", None),
        (DEB822.replace("bookworm bookworm-updates", "noble noble-updates"), None),
        (DEB822 + "Enabled: no\n", None),
        (DEB822.replace("Types: deb", "Types: deb-src"), None),
        (
            DEB822.replace("bookworm bookworm-updates", "nodistro").replace("mirror", "other")
            + "\n"
            + DEB822,
            "http://mirror.example/debian",
        ),
        ("", None),
    ],
)
def test_mirror_of_debian_in_either_format(sources: str, mirror: str | None) -> None:
    assert archive.mirror_in(sources) == mirror


def test_mirror_from_the_environment_the_system_or_official(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(archive.MIRROR_VARIABLE, raising=False)
    assert archive.find_mirror(tmp_path) == archive.OFFICIAL_MIRROR
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources").write_text(DEB822)
    assert archive.find_mirror(tmp_path) == "http://mirror.example/debian"
    monkeypatch.setenv(archive.MIRROR_VARIABLE, "http://near.example/debian")
    assert archive.find_mirror(tmp_path) == "http://near.example/debian"


def _package(directory: Path, name: str, files: dict[str, str]) -> Path:
    """A real .deb with `files` in it."""
    tree = directory / name
    control = (
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: N <n@example>\nDescription: test\n"
    )
    for path, content in {"DEBIAN/control": control, **files}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    subprocess.run(["dpkg-deb", "--build", tree, f"{tree}.deb"], check=True, capture_output=True)
    return Path(f"{tree}.deb")


def test_unpacking_follows_links_that_stand_for_directories(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    old = _package(tmp_path, "old", {"lib/one.so": "one"})
    new = _package(tmp_path, "new", {"usr/lib/two.so": "two"})
    archive.unpack([old, new], into=root)
    assert (root / "lib").is_symlink()
    assert sorted(path.name for path in (root / "usr/lib").iterdir()) == ["one.so", "two.so"]


def test_a_damaged_package_is_named(tmp_path: Path) -> None:
    package = _package(tmp_path, "damaged", {"usr/file": "content"})
    package.write_bytes(package.read_bytes()[:-40])
    with pytest.raises(VmError, match=r"damaged\.deb can't be unpacked"):
        archive.unpack([package], into=tmp_path / "root")
