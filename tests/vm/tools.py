"""The programs that the virtual machines need on the host, and what to do where one is missing."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# The C program of QEMU 7 (Debian 12, in qemu-system-common), and the Rust program with its own package that
# followed it (Debian 13, Ubuntu 24.04).
LEGACY_VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
VIRTIOFSD = Path("/usr/libexec/virtiofsd")

TIMEOUT = 900
"""Seconds that a download or another helper may take."""

# Debian's signing keys, package debian-archive-keyring.
KEYRINGS = tuple(Path("/usr/share/keyrings") / f"debian-archive-keyring.{form}" for form in ("gpg", "pgp"))

_PACKAGES = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "tar": "tar",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-aarch64": "qemu-system-arm",
    "setpriv": "util-linux",
}


class VmError(Exception):
    """Something that keeps the virtual machines from running; `hint` says what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        return f"{super().__str__()}\n  {self.hint}" if self.hint else super().__str__()


def require(*names: str) -> None:
    """Raise VmError, naming every one that is missing and its package, unless all of `names` are there."""
    missing = [name for name in names if not _exists(name)]
    if missing:
        packages = " ".join(sorted({_package(name) for name in missing}))
        raise VmError(f"missing: {', '.join(missing)}", hint=f"install with: apt-get install {packages}")


def virtiofsd() -> Path:
    """The file system server for guests. Raises VmError without one."""
    require("virtiofsd")
    return VIRTIOFSD if VIRTIOFSD.exists() else LEGACY_VIRTIOFSD


def call(command: Sequence[str], *, what: str, hint: str = "", cwd: Path | None = None) -> str:
    """Run a program of the host to its end, and give what it prints.

    Raises VmError, with what it says, when it fails or takes longer than TIMEOUT; `what` names the endeavour.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise VmError(f"{what}: no end after {TIMEOUT} s", hint=hint) from error
    if done.returncode:
        raise VmError(f"{what} failed:\n{done.stderr.strip()}", hint=hint)
    return done.stdout


def _exists(name: str) -> bool:
    match name:
        case "virtiofsd":
            return VIRTIOFSD.exists() or LEGACY_VIRTIOFSD.exists()
        case "debian-archive-keyring":
            return any(path.exists() for path in KEYRINGS)
        case _:
            return shutil.which(name) is not None


def _package(name: str) -> str:
    if name == "virtiofsd":
        return "qemu-system-common" if _is_debian_12() else "virtiofsd"
    return _PACKAGES.get(name, name)


def _is_debian_12() -> bool:
    release = Path("/etc/os-release")
    return release.exists() and "VERSION_CODENAME=bookworm" in release.read_text()
