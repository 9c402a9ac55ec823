"""Builds the Go programs of tests/apps, each in any Go release and link mode that the agent has to cope with.

A program is built once: it stays under build/apps of this checkout, under a name made of its sources and options.
Several test runs may ask for the same one at the same time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from agent.paths import architecture

REPOSITORY = Path(__file__).resolve().parents[2]
APPS = REPOSITORY / "tests" / "apps"
BUILD = REPOSITORY / "build" / "apps"

VERSIONS = ("1.19.13", "1.20.14", "1.21.13", "1.22.12", "1.23.12", "1.24.13", "1.25.14", "1.26.11", "1.27.4")
"""A release of each minor version that is supported, oldest first."""

NEWEST = VERSIONS[-1]

ARCH = architecture()
"""Of this machine, by Go's name."""

LINK_MODES: dict[str, tuple[list[str], list[str]]] = {
    "plain": ([], []),
    "trimpath": (["-trimpath"], []),
    "pie": (["-buildmode=pie"], ["-linkmode=internal"]),
    "external": ([], ["-linkmode=external"]),
    "pie-external": (["-buildmode=pie"], ["-linkmode=external", "-extldflags=-fuse-ld=bfd"]),
    "pie-gold": (["-buildmode=pie"], ["-linkmode=external", "-extldflags=-fuse-ld=gold"]),
    "pie-relr": (
        ["-buildmode=pie"],
        ["-linkmode=external", "-extldflags=-fuse-ld=bfd -Wl,-z,pack-relative-relocs"],
    ),
}
"""Mode to flags for `go build` and for the linker; all of them leave the symbols in."""

STRIPPED_MODES = {
    "stripped": ("plain", "flags"),
    "strip": ("plain", "strip"),
    "no-sections": ("plain", "sections"),
    "pie-stripped": ("pie", "flags"),
    "pie-strip": ("pie", "strip"),
    "pie-no-sections": ("pie", "sections"),
    "pie-empty-targets": ("pie", "targets"),
    "external-strip": ("external", "strip"),
    "pie-external-strip": ("pie-external", "strip"),
    "pie-external-no-sections": ("pie-external", "sections"),
    "pie-gold-strip": ("pie-gold", "strip"),
    "pie-gold-no-sections": ("pie-gold", "sections"),
    "pie-relr-strip": ("pie-relr", "strip"),
    "pie-relr-no-sections": ("pie-relr", "sections"),
}
"""Mode to (link mode of its unstripped twin, how it is stripped).

`flags`: by `-ldflags="-s -w"`. `strip`: by strip(1). `sections`: by those flags, and then the section headers are
removed. `targets`: the words that relocations will fill are zeroed, as lld leaves them.
"""

MODES = (*LINK_MODES, *STRIPPED_MODES)

_EXTERNAL = ("external", "pie-external", "pie-gold", "pie-relr")


@cache
def go_command() -> str:
    """The go command: of the PATH, of Go's own place, or the one `make setup` installed."""
    found = shutil.which("go")
    for candidate in (found, "/usr/local/go/bin/go", str(REPOSITORY / "build" / "go" / "bin" / "go")):
        if candidate and Path(candidate).exists():
            return candidate
    raise FileNotFoundError("no go command found; run `make setup`")


def environment(go: str = NEWEST, *, arch: str = ARCH, cgo: bool = False) -> dict[str, str]:
    """The environment in which the go command is release `go` and builds for `arch`."""
    return os.environ | {
        "GOTOOLCHAIN": f"go{go}",
        "GOOS": "linux",
        "GOARCH": arch,
        "CGO_ENABLED": "1" if cgo else "0",
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
        "GOEXPERIMENT": "",
    }


def go_tool(*arguments: str, go: str = NEWEST) -> str:
    """The output of `go ARGUMENTS` by release `go`."""
    return subprocess.run(
        [go_command(), *arguments], env=environment(go), check=True, capture_output=True, text=True
    ).stdout


def build(
    app: Path | str,
    *,
    go: str = NEWEST,
    arch: str = ARCH,
    mode: str = "stripped",
    cgo: bool = False,
    tags: Sequence[str] = (),
    ldflags: Sequence[str] = (),
    cflags: str = "",
    experiment: str = "",
    modfile: str = "",
) -> Path:
    """The program in directory `app` (a name is one below tests/apps), built by Go release `go`.

    `mode` is one of MODES; see twin_of for the program with symbols that belongs to a stripped one. `experiment` is a
    GOEXPERIMENT, `modfile` the name of a file to use in place of go.mod. No cgo unless asked for or needed by the link
    mode. Raises RuntimeError with the words of the compiler if it can't be built.
    """
    source = APPS / app if isinstance(app, str) else app
    link, strip = STRIPPED_MODES.get(mode, (mode, ""))
    cgo = cgo or link in _EXTERNAL
    options = (go, arch, mode, str(cgo), experiment, modfile, *tags, "", *ldflags, *cflags.split())
    target = BUILD / f"{source.name}-{go}-{arch}-{mode}-{_key(source, options)}" / source.name
    with _locked(target.parent):
        if target.exists():
            return target
        unfinished = target.with_suffix(".unfinished")
        if strip in ("strip", "targets"):
            twin = build(
                source,
                go=go,
                arch=arch,
                mode=link,
                cgo=cgo,
                tags=tags,
                ldflags=ldflags,
                cflags=cflags,
                experiment=experiment,
                modfile=modfile,
            )
            shutil.copy(twin, unfinished)
        else:
            flags, linker = LINK_MODES[link]
            linker = [*linker, *ldflags, *(["-s", "-w"] if strip else [])]
            env = environment(go, arch=arch, cgo=cgo) | {"GOEXPERIMENT": experiment}
            if cflags:
                env["CGO_CFLAGS"] = cflags
            _go_build(source, unfinished, [*flags, *_joined(linker), *_tags(tags), *_modfile(modfile)], env)
        if strip == "strip":
            subprocess.run(["strip", "-s", unfinished], check=True)
        elif strip == "sections":
            remove_section_headers(unfinished)
        elif strip == "targets":
            empty_relocation_targets(unfinished)
        unfinished.rename(target)
    return target


def twin_of(mode: str) -> str:
    """The link mode of a mode: the same program with symbols and DWARF."""
    return STRIPPED_MODES.get(mode, (mode, ""))[0]


def _go_build(source: Path, target: Path, flags: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(
        [go_command(), "build", *flags, "-o", target, "."],
        cwd=source,
        env=env,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"go build {' '.join(flags)} in {source}:\n{done.stderr}")


def _joined(linker: list[str]) -> list[str]:
    return ["-ldflags=" + " ".join(f"'{flag}'" if " " in flag else flag for flag in linker)] if linker else []


def _modfile(name: str) -> list[str]:
    return [f"-modfile={name}"] if name else []


def _tags(tags: Sequence[str]) -> list[str]:
    return ["-tags=" + ",".join(tags)] if tags else []


def _key(source: Path, options: Sequence[str]) -> str:
    """What the build depends on: the sources' names and bytes, and the options."""
    digest = hashlib.sha256("\0".join(options).encode())
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(source)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_section_headers(path: Path) -> None:
    """Let the ELF file say that it has no section headers, as some packers do."""
    with path.open("r+b") as file:
        file.seek(40)
        file.write(bytes(8))  # e_shoff
        file.seek(60)
        file.write(bytes(4))  # e_shnum, e_shstrndx


def empty_relocation_targets(path: Path) -> None:
    """Zero the words of a PIE that RELATIVE relocations will fill, as lld leaves them."""
    data = bytearray(path.read_bytes())
    phoff, phnum = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    headers = [struct.unpack_from("<IIQQQQQQ", data, phoff + 56 * number) for number in range(phnum)]

    def offset(address: int) -> int:
        for kind, _, at, start, _, size, _, _ in headers:
            if kind == 1 and start <= address < start + size:
                return int(at + address - start)
        raise ValueError(f"{address:#x} is in no segment")

    dynamic = next(header for header in headers if header[0] == 2)
    entries = dict(struct.iter_unpack("<QQ", data[dynamic[2] : dynamic[2] + dynamic[5]]))
    table = offset(entries[7])
    for target, kind, _ in struct.iter_unpack("<QQQ", data[table : table + entries[8]]):
        if kind & 0xFFFFFFFF in (8, 1027):
            data[offset(target) : offset(target) + 8] = bytes(8)
    path.write_bytes(data)
