"""Debian's cloud kernels: which ones are tested, and how they come into the cache.

A cloud kernel is small, has BTF, uprobes and the BPF ring buffer, and its modules suffice for a QEMU guest.
"""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.vm import archive, cache
from tests.vm.tools import VmError

ARCHITECTURES = ("amd64", "arm64")


@dataclass(frozen=True, slots=True)
class Series:
    """A line of kernels: its name, the suite that has it, and the one release wanted where that is fixed."""

    name: str
    suite: str
    pinned: str | None = None

    def has(self, release: str) -> bool:
        """Whether `release` ("6.1.0-50") is one of this series."""
        if self.pinned:
            return release == self.pinned
        return release.startswith(self.name.removesuffix("x").removesuffix(".") + ".")


# 5.10 is the oldest that Debian still has. Its later releases are in the security suite, which drops files;
# this one stays in bullseye.
SERIES = (
    Series("5.10", "bullseye", pinned="5.10.0-30"),
    Series("6.1", "bookworm"),
    Series("6.12", "trixie"),
    Series("7.x", "trixie-backports"),
)
NAMES = tuple(series.name for series in SERIES)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel in the cache."""

    name: str
    """The series, as in "6.1" or "7.x"."""
    arch: str
    """Debian's name of the architecture: "amd64" or "arm64"."""
    release: str
    """What `uname -r` will say."""
    vmlinuz: Path
    modules: Path
    """The directory that belongs at /lib/modules/<release>."""


def fetch(name: str, arch: str = "amd64") -> Kernel:
    """The newest cached kernel of the series `name`; downloaded from Debian if there is none.

    A cached one is kept when the suite moves on: delete ~/.cache/gospan/kernels for newer ones.
    Raises VmError for an unknown name, and when the kernel can't be had.
    """
    series = next((series for series in SERIES if series.name == name), None)
    if series is None or arch not in ARCHITECTURES:
        raise VmError(
            f"no kernel {name} for {arch}", hint=f"known: {', '.join(NAMES)}; {', '.join(ARCHITECTURES)}"
        )
    shelf = cache.directory("kernels") / arch
    cached = [path.name for path in shelf.glob("*") if series.has(path.name)]
    if not cached:
        cached = [_download(series, arch, shelf)]
    return _kernel(series, arch, shelf / max(cached, key=version))


def newest(packages: Iterable[str], series: Series, arch: str) -> list[str]:
    """Of a suite's `packages`, those that make up the newest cloud kernel of `series`; none is an empty list.

    That is a linux-image package, or, since Debian's 7.x, a pair of linux-binary and linux-modules.
    """
    pattern = re.compile(rf"linux-(image|binary|modules)-(\d.*)-cloud-{arch}$")
    kinds: dict[str, dict[str, str]] = {}
    for package in packages:
        if found := pattern.match(package):
            kinds.setdefault(found[2], {})[found[1]] = package
    complete: dict[str, list[str]] = {}
    for release, parts in kinds.items():
        # linux-image of such a release merely depends on the pair.
        needed = ("binary", "modules") if {"binary", "modules"} & parts.keys() else ("image",)
        if series.has(release) and all(kind in parts for kind in needed):
            complete[release] = [parts[kind] for kind in needed]
    return complete[max(complete, key=version)] if complete else []


def version(release: str) -> tuple[int, ...]:
    """The numbers in a release, for comparing: "6.1.0-50" is (6, 1, 0, 50)."""
    return tuple(map(int, re.findall(r"\d+", release)))


def _download(series: Series, arch: str, shelf: Path) -> str:
    """Put the newest kernel of the series on the shelf, and give the name of its directory."""
    with archive.debian(series.suite, arch) as suite:
        packages = newest(suite.names("linux-"), series, arch)
        if not packages:
            raise VmError(f"Debian {series.suite} has no cloud kernel {series.name} for {arch}")
        release = packages[0].removesuffix(f"-cloud-{arch}").split("-", 2)[2]
        unpacked = suite.root / "unpacked"
        archive.unpack(suite.download(packages, into=suite.root / "packages"), into=unpacked)
        with cache.filling(shelf / release) as home:
            shutil.move(_only(unpacked, "vmlinuz*"), home / "vmlinuz")
            shutil.move(_only(unpacked, "modules/*/kernel").parent, home / "modules")
            (home / "release").write_text(f"{release}-cloud-{arch}\n")
    return release


def _only(root: Path, pattern: str) -> Path:
    found = sorted(root.rglob(pattern))
    if len(found) != 1:
        raise VmError(f"a kernel package holds {len(found)} of {pattern} where one was expected")
    return found[0]


def _kernel(series: Series, arch: str, home: Path) -> Kernel:
    release = (home / "release").read_text().strip()
    return Kernel(
        name=series.name, arch=arch, release=release, vmlinuz=home / "vmlinuz", modules=home / "modules"
    )
