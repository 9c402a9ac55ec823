"""Kernel modules: which files to load, in which order, to have certain modules.

Debian's packages come without modules.dep (depmod makes it on installation), so that the dependencies are
read from the modules themselves.
"""

import lzma
import re
from collections.abc import Callable, Iterable
from pathlib import Path

# An entry of the .modinfo section (linux/moduleinfo.h): "depends=a,b", between null bytes.
_DEPENDS = re.compile(rb"\0depends=([\w,-]*)\0")


def dependencies(module: bytes) -> tuple[str, ...]:
    """The modules that must be loaded before `module`, the content of a .ko file."""
    found = _DEPENDS.search(module)
    return tuple(_spelled(name) for name in found[1].decode().split(",") if name) if found else ()


def in_order(wanted: Iterable[str], read: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """Content of the `wanted` modules and all that they need, each after what it depends on.

    `read` gives a module's content, or None for one that has no file: it is part of the kernel itself.
    """
    ordered: dict[str, bytes] = {}
    visited: set[str] = set()

    def visit(name: str) -> None:
        if name in visited:
            return
        visited.add(name)
        if (content := read(name)) is None:
            return
        for dependency in dependencies(content):
            visit(dependency)
        ordered[name] = content

    for name in wanted:
        visit(_spelled(name))
    return ordered


def collect(directory: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """The `wanted` modules of the kernel whose modules lie in `directory`, uncompressed, in loading order."""
    files = {_spelled(path.name.partition(".")[0]): path for path in directory.rglob("*.ko*")}

    def read(name: str) -> bytes | None:
        path = files.get(name)
        if path is None:
            return None
        content = path.read_bytes()
        return lzma.decompress(content) if path.suffix == ".xz" else content

    return in_order(wanted, read)


def _spelled(name: str) -> str:
    """The kernel's own spelling of a module's name: file names may have dashes for underscores."""
    return name.replace("-", "_")
