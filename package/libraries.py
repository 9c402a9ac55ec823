"""One directory of Python libraries that serves every Python that gospan is installed for.

The wheels of one library for two Pythons have the same files, but for extension modules, and those carry the Python in
their name (`cygrpc.cpython-311-x86_64-linux-gnu.so`): each interpreter finds its own, so they can lie side by side.
That saves a package per distribution, and costs 17 MB for each further Python.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from package.wheels import PYTHONS, install

GLIBC = 36
"""Debian 12 has glibc 2.36, the oldest of the distributions that are supported."""

# What the build needs (setuptools, and what pip makes of scripts), a compiler, or PyPy (zstandard's second extension,
# 12 MB a Python), and what rich wants for source code and Markdown, a quarter of all modules: nothing of it is
# imported.
_LEFT_OUT = (
    "setuptools*",
    "_distutils_hack",
    "*.pth",
    "bin",
    "*/tests",
    "capstone/include",
    "zstandard/_cffi.*",
    "pygments*",
    "markdown_it*",
    "mdurl*",
)
# Of the metadata, these name the wheel that a file came from; they differ between Pythons, and pip alone reads them.
_PIPS_OWN = ("RECORD", "WHEEL", "INSTALLER", "REQUESTED")


class MergeError(Exception):
    """Two wheels of a library can't share a directory."""


def collect(lock: Path, arch: str, *, cache: Path) -> Path:
    """Make the directory for an architecture, or give the one made before; it is kept below `cache`.

    Raises WheelError, and MergeError where wheels for two Pythons have different files of the same name.
    """
    made_of = repr((PYTHONS, GLIBC, _LEFT_OUT, _PIPS_OWN)).encode() + lock.read_bytes()
    home = cache / f"{arch}-{hashlib.sha256(made_of).hexdigest()[:12]}"
    if home.exists():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as scratch:
        merged = Path(scratch) / "merged"
        merged.mkdir()
        for python in PYTHONS:
            one = Path(scratch) / python
            install(lock, one, python=python, arch=arch, glibc=GLIBC)
            _prune(one)
            merge(one, merged)
            shutil.rmtree(one)
        merged.rename(home)
    return home


def merge(source: Path, target: Path) -> None:
    """Add the files below `source` to those below `target`; those of the same name have to be the same."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        elif not place.exists():
            shutil.copyfile(path, place)
        elif path.read_bytes() != place.read_bytes():
            name = path.relative_to(source)
            raise MergeError(
                f"{name} differs from one Python to the other, so that they can't share a directory"
            )


def _prune(directory: Path) -> None:
    for pattern in _LEFT_OUT:
        for path in directory.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in _PIPS_OWN:
        for path in directory.glob(f"*.dist-info/{name}"):
            path.unlink()
