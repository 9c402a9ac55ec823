"""Go servers that a distribution built and packaged, without our flags, our releases of Go or our symbols."""

import subprocess
from pathlib import Path

from tests.support.golang import REPOSITORY

KEPT = REPOSITORY / "build" / "packages"


def unpack(package: str) -> Path:
    """The directory with a package's files, downloaded when first needed and never installed."""
    target = KEPT / package
    if not target.exists():
        unfinished = KEPT / f"{package}.unfinished"
        unfinished.mkdir(parents=True, exist_ok=True)
        download = ["apt-get", "download", "-q", package]
        if subprocess.run(download, cwd=unfinished, capture_output=True).returncode:
            subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
            subprocess.run(download, cwd=unfinished, check=True, capture_output=True)
        (archive,) = unfinished.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, unfinished], check=True)
        archive.unlink()
        unfinished.rename(target)
    return target


def go_programs(package: str) -> list[Path]:
    """The large programs of a package, which all are Go's."""
    files = (path for path in unpack(package).rglob("bin/*") if path.is_file() and not path.is_symlink())
    return sorted(path for path in files if path.stat().st_size > 1 << 20)
