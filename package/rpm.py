"""An .rpm of the staged tree: for distributions with Python 3.11 or later as /usr/bin/python3, and libbpf 1."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from package.tree import BUILD, Release, stage

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_SPEC = Path(__file__).resolve().parent / "files" / "gospan.spec"


def build(release: Release, output: Path) -> Path:
    """Make the package in the directory `output`, and give its path."""
    tree = BUILD / f"rpm-{release.arch}"
    stage(release, tree)
    arch = _ARCHITECTURES[release.arch]
    top = BUILD / "rpmbuild"
    defines = {
        "_topdir": str(top),
        "_rpmdir": str(output),
        "_rpmfilename": "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm",
        "_build_id_links": "none",
        "_buildhost": "localhost",
        "use_source_date_epoch_as_buildtime": "1",
        "clamp_mtime_to_source_date_epoch": "1",
        "gospan_version": release.version,
        "gospan_tree": str(tree),
    }
    command = ["rpmbuild", "-bb", "--quiet", "--target", f"{arch}-linux"]
    for name, value in defines.items():
        command += ["--define", f"{name} {value}"]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(release.epoch)}
    output.mkdir(parents=True, exist_ok=True)
    subprocess.run([*command, str(_SPEC)], check=True, env=environment)
    return output / f"gospan-{release.version}-1.{arch}.rpm"
