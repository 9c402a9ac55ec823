"""The programs that a guest has: the host's own, or Debian's, for another architecture or with systemd."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from package import wheels
from tests.vm import archive, cache
from tests.vm.tools import VmError

SUITE = "bookworm"
PYTHON = (3, 11)
"""The Python of SUITE."""

# What a guest needs beside the kernel; the dependencies come along. libstdc++6 is for grpc's wheel.
PACKAGES = (
    *("base-files", "bash", "coreutils", "dash", "findutils", "grep", "sed"),
    *("iproute2", "mount", "procps", "util-linux"),
    *("base-passwd", "libbpf1", "libstdc++6", "python3"),
)
SYSTEMD = ("dbus", "systemd", "systemd-sysv", "udev")

# Debian 12 expects these links before its first package is unpacked; its base-files doesn't have them.
_MERGED = ("bin", "lib", "lib64", "sbin")
# What the packages' scripts would have made. With a known machine-id the boot isn't the first one, which asks
# questions. Further users come from systemd-sysusers.
_FILES = {
    "etc/machine-id": "5f0c1d3a9b6e4d7c8a2b3c4d5e6f7081\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Userland:
    """A root file system for guests, as a directory of the host."""

    root: Path
    visible: tuple[Path, ...] = ()
    """Directories of the host that the guest has at the same place, besides those in `root`."""
    writable: tuple[Path, ...] = ()
    """Directories of the host that the guest may change."""
    env: Mapping[str, str] = field(default_factory=dict)


def of(arch: str, project: Path, *, systemd: bool = False) -> Userland:
    """The userland for guests of `arch`, with the project and its Python dependencies.

    For amd64 it is the host's, which isn't made to be booted by a second systemd. The others are downloaded
    once: the programs from Debian, the dependencies as the wheels that requirements.lock names.
    Raises VmError when that can't be done.
    """
    if arch == "amd64" and not systemd:
        return Userland(root=Path("/"), env={"PATH": f"{project}/.venv/bin:{_PATH}"})
    libraries = _wheels(project / "requirements.lock", arch)
    # Nobody has compiled the Python modules, as an installation does, and it takes an emulated processor
    # longer than all else. What one guest has compiled, the next ones find.
    compiled = cache.directory("pycache") / arch
    return Userland(
        root=_unpacked(arch, (*PACKAGES, *SYSTEMD) if systemd else PACKAGES),
        visible=(project, libraries),
        writable=(compiled,),
        env={"PATH": _PATH, "PYTHONPATH": f"{project}:{libraries}", "PYTHONPYCACHEPREFIX": str(compiled)},
    )


def busybox(arch: str) -> Path:
    """Busybox for `arch`, linked statically: the shell that boots a guest."""
    home = cache.directory("busybox") / arch
    if not home.exists():
        with cache.filling(home) as root, archive.debian(SUITE, arch) as suite:
            archive.unpack(suite.download(["busybox-static"], into=suite.root / "busybox"), into=root)
    return home / "bin" / "busybox"


def _unpacked(arch: str, packages: Sequence[str]) -> Path:
    """Debian's `packages` for `arch`, unpacked but not configured: enough to run programs, and systemd."""
    home = _home(arch, packages)
    if home.exists():
        return home
    with cache.filling(home) as root, archive.debian(SUITE, arch) as suite:
        for name in _MERGED:
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        archive.unpack(suite.download_with_dependencies(packages), into=root)
        for name, content in _FILES.items():
            (root / name).write_text(content)
        for name in ("passwd", "group"):
            shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
        (root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    return home


def _home(arch: str, packages: Sequence[str]) -> Path:
    """Where a userland is kept; all that it is made of decides about the name."""
    made_of = repr((tuple(packages), _MERGED, _FILES))
    return cache.directory("userland") / f"{SUITE}-{arch}-{_digest(made_of.encode())}"


def _wheels(lock: Path, arch: str) -> Path:
    """The packages that the lock file names, as wheels for `arch`, on one path for Python."""
    if not lock.exists():
        raise VmError(f"{lock} is missing: guests for {arch} get their Python packages from it")
    home = cache.directory("wheels") / f"{arch}-python{PYTHON[0]}.{PYTHON[1]}-{_digest(lock.read_bytes())}"
    if home.exists():
        return home
    with cache.filling(home) as packages:
        try:
            wheels.install(lock, packages, python=f"{PYTHON[0]}.{PYTHON[1]}", arch=arch, glibc=36)
        except wheels.WheelError as error:
            raise VmError(str(error)) from error
    return home


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
