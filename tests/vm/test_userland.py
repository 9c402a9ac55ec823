from pathlib import Path

import pytest

from tests.vm import userland
from tests.vm.tools import VmError


def test_guests_of_the_host_s_architecture_use_its_own_files() -> None:
    land = userland.of("amd64", Path("/project"))
    assert land.root == Path("/")
    assert land.env["PATH"].startswith("/project/.venv/bin:")
    assert (land.visible, land.writable) == ((), ())


def test_others_need_the_lock_file(tmp_path: Path) -> None:
    with pytest.raises(VmError, match=r"requirements\.lock is missing"):
        userland.of("arm64", tmp_path)


def test_others_use_what_is_cached_for_this_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")  # nothing can be downloaded
    project = tmp_path / "project"
    project.mkdir()
    lock = b"psutil==7.2.2\n"
    (project / "requirements.lock").write_bytes(lock)
    kept = tmp_path / "cache/gospan"
    wheels = kept / f"wheels/arm64-python3.11-{userland._digest(lock)}"
    root = userland._home("arm64", userland.PACKAGES)
    wheels.mkdir(parents=True)
    root.mkdir(parents=True)
    land = userland.of("arm64", project)
    assert land.root == root
    assert land.visible == (project, wheels)
    assert land.env["PYTHONPATH"] == f"{project}:{wheels}"
    assert land.writable == (kept / "pycache/arm64",)


def test_a_changed_list_of_packages_is_another_userland() -> None:
    plain, booted = userland.PACKAGES, (*userland.PACKAGES, *userland.SYSTEMD)
    homes = {userland._home(arch, packages) for arch in ("amd64", "arm64") for packages in (plain, booted)}
    assert len(homes) == 4
