"""Go toolchains and modules: which versions there are, getting one, building a program with it. All by the go command.

Whatever is downloaded for a build goes into the caller's directory and not among the user's own modules; toolchains
that the user has already are used where they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.offsets.programs import Program
from agent.offsets.versions import STANDARD_LIBRARY, minor, release, without_gaps

_TOOLCHAIN_MODULE = "golang.org/toolchain"
_TIMEOUT = 1800

_GONE = re.compile(
    r"403 Forbidden|404 Not Found|410 Gone|toolchain not available|unknown revision|no matching versions"
)
"""What the go command says of a version that isn't to be had, now or later; anything else may pass."""


_PASSING = re.compile(
    r"dial tcp|connection re|i/o timeout|TLS handshake|no such host|50\d [A-Z]|no space left|signal: |EOF"
)
"""What it says of trouble that may pass, though it came up while building."""


class GoError(Exception):
    """The go command failed, in a way that may not last: the network, the disk, the installation."""


class UnavailableError(Exception):
    """A version can't be had or can't be built, and trying again would not help."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """An installed Go release, without `go`: its tree, and the build cache that goes with it."""

    version: str
    root: Path
    cache: Path | None = None

    def environment(self, *, arch: str = "amd64", modules: Path) -> dict[str, str]:
        """The environment in which this very release builds for `arch`, and nothing else has a say."""
        env = _environment() | {
            "GOROOT": str(self.root),
            "GOOS": "linux",
            "GOARCH": arch,
            "CGO_ENABLED": "0",
            # Compilers live for a second each: to collect garbage when there is much of it saves a fifth.
            "GOGC": "400",
            "GOMODCACHE": str(modules),
            "GOFLAGS": "-mod=mod -modcacherw -buildvcs=false",
        }
        if self.cache:
            env["GOCACHE"] = str(self.cache)
        return env

    @property
    def go(self) -> str:
        """The go command."""
        return str(self.root / "bin" / "go")


class Toolchains:
    """Gets toolchains: of the user's own, else by download into `directory`, which is emptied when this is closed."""

    def __init__(self, directory: Path, roots: Iterable[Path] = ()) -> None:
        """With `roots`, use these installed Go trees for the releases that they are."""
        self._directory = directory
        self._given = {_version_of(root): root for root in roots}

    @property
    def given(self) -> set[str]:
        """The releases whose trees the user has pointed out."""
        return set(self._given)

    @property
    def modules(self) -> Path:
        """Where what programs require is kept meanwhile: versions of a module have much of it in common."""
        return self._directory / "modules"

    def get(self, version: str) -> Toolchain:
        """Get a release. Raises UnavailableError if there is none to be had, GoError if that failed otherwise."""
        if version in self._given:
            return Toolchain(version, self._given[version], self._directory / version / "cache")
        environment = _environment() | {"GOTOOLCHAIN": f"go{version}"}
        own = self._directory / version
        if not _installed(version):
            own.mkdir(parents=True, exist_ok=True)
            environment["GOMODCACHE"] = str(own / "modules")
        try:
            root = _run([_go(), "env", "GOROOT"], environment, self._directory.parent).strip()
        except UnavailableError as error:
            raise UnavailableError(f"the toolchain can't be had: {str(error).rpartition(': ')[2]}") from None
        if not (Path(root) / "bin" / "go").exists():
            raise GoError(f"go{version} has no go command at {root}")
        return Toolchain(version, Path(root), own / "cache" if own.exists() else None)

    def drop(self, version: str) -> None:
        """Remove what was downloaded and built for a release."""
        remove_tree(self._directory / version)

    def close(self) -> None:
        """Remove everything that was downloaded."""
        remove_tree(self._directory)


def toolchain_versions() -> list[str]:
    """Every Go release there is, oldest first, as far as its newest patches tell.

    A proxy lists what it has been asked for. Go numbers patches without gaps, so a release below a listed one exists.
    """
    platform = _run([_go(), "env", "GOHOSTOS", "GOHOSTARCH"], _environment()).split()
    suffix = "." + "-".join(platform)
    listed = [
        version.removeprefix("v0.0.1-").removesuffix(suffix)
        for version in _list_versions(_TOOLCHAIN_MODULE)
        if version.endswith(suffix)
    ]
    return without_gaps(listed)


def module_versions(module: str) -> list[str]:
    """Every released version of a module that the proxy lists, without release candidates and the like."""
    return [version for version in _list_versions(module) if release(version)]


def build(
    program: Program, version: str, toolchain: Toolchain, target: Path, *, arch: str, modules: Path
) -> None:
    """Compile a program with a version of its module; without optimization, which no layout depends on.

    What is downloaded for it goes into the directory `modules`.

    Raises UnavailableError with the reason if it can't be built, GoError if something else went wrong.
    """
    with tempfile.TemporaryDirectory(prefix="gospan-offsets-", dir=target.parent) as name:
        directory = Path(name)
        for file, source in program.sources.items():
            (directory / file).write_bytes(source)
        go = ".".join(str(number) for number in minor(toolchain.version) or ())
        # With a dot: Go 1.19.13 takes a path without one for the standard library's.
        lines = ["module gospan.invalid/offsets", f"go {go}"]
        if program.module != STANDARD_LIBRARY:
            lines.append(f"require {program.module} {version}")
        (directory / "go.mod").write_text("\n\n".join(lines) + "\n")
        flags = ["-gcflags=all=-N -l", "-ldflags=-compressdwarf=false"]
        _run(
            [toolchain.go, "build", *flags, "-o", str(target), "."],
            toolchain.environment(arch=arch, modules=modules),
            directory,
            unavailable=True,
        )


def remove_tree(path: Path) -> None:
    """Remove a directory, also where Go has made parts of it read-only."""
    if not path.exists():
        return
    for parent, _, _ in os.walk(path):
        Path(parent).chmod(0o755)
    # What is left, because somebody else removes it too, is no harm: the next run removes it.
    shutil.rmtree(path, ignore_errors=True)


def _list_versions(module: str) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="gospan-offsets-") as directory:
        # Outside of a module, or the one around us would have a say.
        words = _run([_go(), "list", "-m", "-versions", module], _environment(), Path(directory)).split()
    return words[1:]


def _installed(version: str) -> bool:
    """Whether the user has this release among the modules already."""
    cache, arch = _run([_go(), "env", "GOMODCACHE", "GOHOSTARCH"], _environment()).split("\n")[:2]
    return (Path(cache) / f"{_TOOLCHAIN_MODULE}@v0.0.1-go{version}.linux-{arch}").exists()


def _version_of(root: Path) -> str:
    try:
        first = (root / "VERSION").read_text().split()[0]
    except (OSError, IndexError) as error:
        raise GoError(f"{root} is no Go tree: {error}") from error
    if release(first) is None:
        raise GoError(f"{root} is {first}, which is no released version of Go")
    return first.removeprefix("go")


def _go() -> str:
    found = shutil.which("go")
    if found is None:
        raise GoError("there is no go command; install Go 1.21 or later, any release will do")
    return found


def _environment() -> dict[str, str]:
    """Ours, without what the user may have set for builds of another kind."""
    return os.environ | {
        "GO111MODULE": "on",
        "GOARCH": "",
        "GOEXPERIMENT": "",
        "GOFLAGS": "-mod=mod",
        "GOOS": "",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _run(
    command: list[str],
    environment: Mapping[str, str],
    directory: Path | None = None,
    *,
    unavailable: bool = False,
) -> str:
    """The output of a command; `unavailable`: its failure is the version's own, unless it looks passing."""
    try:
        # In a session of its own: an interrupt from the terminal is ours, and lets what runs finish.
        done = subprocess.run(
            command,
            env=environment,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise GoError(f"{' '.join(command[:2])} took longer than {_TIMEOUT} s") from None
    if not done.returncode:
        return done.stdout
    reason = _reason(done.stderr)
    if _GONE.search(done.stderr) or (
        unavailable and done.returncode > 0 and not _PASSING.search(done.stderr)
    ):
        raise UnavailableError(reason)
    raise GoError(f"{Path(command[0]).name} {' '.join(command[1:3])}: {reason}")


def _reason(text: str) -> str:
    """The line of the go command's words that says why, without what differs from machine to machine."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [
        line for line in lines if not line.startswith(("#", "go: downloading", "go: finding", "go: added"))
    ]
    return re.sub(r"(?<![\w.@~-])/(?:[^\s:/]+/)+", "", (said or lines or ["it said nothing"])[0])[:200]
