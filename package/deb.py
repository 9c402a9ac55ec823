"""A .deb of the staged tree: for Debian 12 and later; Ubuntu 24.04 has what it depends on, but was not tried."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from package.tree import (
    BUILD,
    CONFIGURATION,
    DESCRIPTION,
    MAINTAINER,
    SUMMARY,
    Release,
    settle,
    stage,
    units,
)
from package.wheels import PYTHONS

_FILES = Path(__file__).resolve().parent / "files"
_SCRIPTS = ("postinst", "prerm", "postrm")

# libstdc++6 is what the wheel of gRPC is linked against; the group is made by systemd-sysusers.
_DEPENDS = (
    "libbpf1",
    "libc6 (>= 2.36)",
    "libstdc++6",
    "init-system-helpers (>= 1.54)",
    "systemd | systemd-standalone-sysusers",
)


def build(release: Release, output: Path) -> Path:
    """Make the package in the directory `output`, and give its path. Raises what stage() and dpkg-deb give."""
    tree = BUILD / f"deb-{release.arch}"
    stage(release, tree)
    _copy(_FILES / "rtupdate", tree / "usr/share/python3/runtime.d/gospan.rtupdate", mode=0o755)
    _copy(_FILES / "lintian-overrides", tree / "usr/share/lintian/overrides/gospan")
    settle(tree, release.epoch)
    _control(release, tree)
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (release.epoch, release.epoch))
    output.mkdir(parents=True, exist_ok=True)
    package = output / f"gospan_{release.version}_{release.arch}.deb"
    # zstd at 9 is 20 % larger than xz, and made in a tenth of the time; every supported dpkg reads it.
    command = ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z9", "--build", str(tree), str(package)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(release.epoch)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return package


def depends() -> list[str]:
    """What the package depends on."""
    newest = int(PYTHONS[-1].removeprefix("3."))
    return [f"python3 (>= {PYTHONS[0]})", f"python3 (<< 3.{newest + 1})", *_DEPENDS]


def _control(release: Release, tree: Path) -> None:
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in files)
    control = tree / "DEBIAN"
    control.mkdir()
    control.chmod(0o755)
    fields = {
        "Package": "gospan",
        "Version": release.version,
        "Architecture": release.arch,
        "Maintainer": MAINTAINER,
        "Installed-Size": str(-(-size // 1024)),
        "Depends": ", ".join(depends()),
        "Recommends": "ca-certificates",
        "Section": "admin",
        "Priority": "optional",
        "Description": SUMMARY + "".join(f"\n {line}" for line in DESCRIPTION.splitlines()),
    }
    (control / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    (control / "conffiles").write_text(f"/{CONFIGURATION}\n")
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in files
        if path.relative_to(tree).as_posix() != CONFIGURATION
    ]
    (control / "md5sums").write_text("".join(sums))
    for name in _SCRIPTS:
        script = control / name
        script.write_text(
            (_FILES / name).read_text().replace("UNITS", " ".join(path.name for path in units()))
        )
        script.chmod(0o755)
    for name in ("control", "conffiles", "md5sums"):
        (control / name).chmod(0o644)


def _copy(source: Path, target: Path, *, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)
