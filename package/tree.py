"""The tree of files as they are installed; what is in a package, and nothing else."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from agent import __version__
from package import libraries

PROJECT = Path(__file__).resolve().parents[1]
BUILD = PROJECT / "build" / "package"
_FILES = Path(__file__).resolve().parent / "files"

MAINTAINER = "gospan maintainers <maintainers@gospan.invalid>"
SUMMARY = "distributed traces from unmodified Go programs, by eBPF"
DESCRIPTION = """\
gospan is one agent a machine. It finds the Go programs that run on it, reads
out of each executable which libraries are in it and where their fields lie,
attaches eBPF probes, and sends OpenTelemetry spans to a collector. Nothing is
rebuilt, restarted or configured in the traced programs.
"""
CONFIGURATION = "etc/gospan/config.toml"


@dataclass(frozen=True, slots=True)
class Release:
    """What is packaged: for which architecture ("amd64"), as which version, and the time that all files bear."""

    arch: str
    version: str = __version__
    epoch: int = 0

    @property
    def date(self) -> str:
        """The day of the release."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.epoch))


def stage(release: Release, tree: Path) -> None:
    """Make the tree of a release in the directory `tree`, anew. Raises WheelError, MergeError, OSError."""
    shutil.rmtree(tree, ignore_errors=True)
    _program(release, tree)
    _copy(PROJECT / "offsets.json", tree / "usr/share/gospan/offsets.json")
    _copy(PROJECT / "systemd/config.toml", tree / CONFIGURATION, mode=0o640)
    (tree / "etc/gospan/conf.d").mkdir()
    for path in units():
        _copy(path, tree / "usr/lib/systemd/system" / path.name)
    _copy(PROJECT / "systemd/sysusers.conf", tree / "usr/lib/sysusers.d/gospan.conf")
    _copy(PROJECT / "systemd/gospan.catalog", tree / "usr/lib/systemd/catalog/gospan.catalog")
    _documents(release, tree / "usr/share/doc/gospan")
    subprocess.run(
        [sys.executable, "-m", "package.generate", str(tree), release.date], cwd=PROJECT, check=True
    )
    for name in ("etc/gospan", "etc/gospan/conf.d"):
        (tree / name).chmod(0o750)
    settle(tree, release.epoch)


def units() -> list[Path]:
    """The units in systemd/."""
    return sorted(
        path for path in (PROJECT / "systemd").iterdir() if path.suffix in (".service", ".timer", ".socket")
    )


def _program(release: Release, tree: Path) -> None:
    _copy(_FILES / "gospan", tree / "usr/bin/gospan", mode=0o755)
    home = tree / "usr/lib/gospan"
    shutil.copytree(PROJECT / "agent", home / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    # A package of another version says so when it is asked; only tests make one.
    about = home / "agent/__init__.py"
    about.write_text(about.read_text().replace(f'"{__version__}"', f'"{release.version}"'))
    packages = libraries.collect(PROJECT / "requirements.lock", release.arch, cache=BUILD / "packages")
    shutil.copytree(packages, home / "packages")
    objects = sorted((PROJECT / "build/bpf" / release.arch).glob("*.bpf.o"))
    if len(objects) != len(list((PROJECT / "bpf").glob("*.bpf.c"))):
        raise FileNotFoundError(f"BPF objects for {release.arch} are missing; `make bpf` compiles them")
    for path in objects:
        _copy(path, home / "bpf" / path.name)


def _documents(release: Release, directory: Path) -> None:
    for path in (PROJECT / "README.md", *sorted((PROJECT / "docs").iterdir())):
        _copy(path, directory / path.name)
    _copy(_FILES / "copyright", directory / "copyright")
    _copy(PROJECT / "LICENSE", directory / "LICENSE")
    entry = (
        f"gospan ({release.version}) unstable; urgency=medium\n\n"
        f"  * Version {release.version}.\n\n"
        f" -- {MAINTAINER}  {formatdate(release.epoch)}\n"
    )
    (directory / "changelog.gz").write_bytes(gzip.compress(entry.encode(), mtime=0))


def _copy(source: Path, target: Path, *, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def settle(tree: Path, epoch: int) -> None:
    """Give all files the release's time, and modes that don't depend on the umask of whoever builds."""
    for path in (tree, *sorted(tree.rglob("*"))):
        if not path.is_symlink():
            private = path.relative_to(tree).parts[:2] == ("etc", "gospan")
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(path.stat().st_mode & 0o750 if private else 0o755 if runs else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
