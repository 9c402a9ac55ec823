"""The Python libraries of the lock file as wheels, for machines other than this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""The Pythons that an installed gospan runs with: of Debian 12 and 13, of Ubuntu 24.04 and 26.04."""

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class WheelError(Exception):
    """The wheels can't be had; says what pip said."""


def install(lock: Path, target: Path, *, python: str, arch: str, glibc: int) -> None:
    """Unpack what `lock` names into the directory `target`, for a Python ("3.11") and an architecture ("arm64").

    Only wheels, with the hashes that the lock file has; `glibc` is the minor number of the oldest glibc 2.x that they
    have to work with. Raises WheelError.
    """
    machine = _MACHINES[arch]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(glibc, 16, -1)]
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
        *(
            "--require-hashes",
            "--no-deps",
            "--only-binary=:all:",
            "--no-compile",
            "--root-user-action=ignore",
        ),
        *("--implementation", "cp", "--python-version", python),
        *(f"--platform={platform}" for platform in (*platforms, f"manylinux2014_{machine}")),
        *("--target", str(target), "-r", str(lock)),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WheelError(f"no Python packages for Python {python} on {arch}:\n{done.stderr.strip()}")
