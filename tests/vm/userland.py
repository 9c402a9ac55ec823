"""The programs that a guest has: the host's own, or Debian's for another architecture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm import archive
from tests.vm.tools import cache

SUITE = "bookworm"


@dataclass(frozen=True, slots=True)
class Userland:
    """A root file system for guests, as a directory of the host."""

    root: Path
    visible: tuple[Path, ...] = ()
    """Directories of the host that the guest has at the same place, besides those in `root`."""
    writable: tuple[Path, ...] = ()
    """Directories of the host that the guest may change."""
    env: Mapping[str, str] = field(default_factory=dict)


def of(arch: str, project: Path) -> Userland:
    """The userland for guests of `arch`, with the project and its Python dependencies."""
    if arch == "amd64":
        return Userland(
            root=Path("/"),
            env={"PATH": f"{project}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    raise NotImplementedError


def busybox(arch: str) -> Path:
    """Busybox for `arch`, linked statically: the shell that boots a guest."""
    path = cache() / "busybox" / arch / "bin" / "busybox"
    if not path.exists():
        scratch = path.parents[1].with_name(f".new-{arch}")
        with archive.debian(SUITE, arch) as suite:
            packages = suite.download(["busybox-static"], into=suite.root / "busybox")
            archive.unpack(packages, into=scratch)
        archive.replace(path.parents[1], by=scratch)
    return path
