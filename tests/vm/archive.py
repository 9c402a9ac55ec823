"""Packages of a Debian suite, fetched through a private apt root.

The system's own apt state isn't touched: sources, lists, status and cache live in a temporary directory.
What the system says about proxies and authentication still applies.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm.tools import KEYRINGS, TIMEOUT, VmError, call, require

OFFICIAL_MIRROR = "http://deb.debian.org/debian"
MIRROR_VARIABLE = "GOSPAN_DEBIAN_MIRROR"

_DEBIAN_SUITE = re.compile(r"(bullseye|bookworm|trixie|forky|sid|stable|oldstable)(-updates|-backports)?$")

# Read after the system's configuration (apt-get -c), so it has the last word.
_APT_CONF = """\
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
Dir::Etc::SourceList "{root}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
APT::Architecture "{arch}";
APT::Architectures "{arch}";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
"""


@dataclass(frozen=True, slots=True)
class Archive:
    """One suite for one architecture, its package lists fetched and their signatures verified by apt."""

    suite: str
    arch: str
    root: Path

    def names(self, prefix: str) -> list[str]:
        """Names of the suite's packages that begin with `prefix`."""
        return self._apt("apt-cache", "pkgnames", prefix).split()

    def download(self, packages: Sequence[str], *, into: Path) -> list[Path]:
        """Download the newest version of each of `packages`, alone, and give the files."""
        into.mkdir(parents=True, exist_ok=True)
        self._apt("apt-get", "download", *packages, cwd=into)
        return sorted(into.glob("*.deb"))

    def download_with_dependencies(self, packages: Sequence[str]) -> list[Path]:
        """Download `packages` and all that they depend on, as for an empty system, and give the files.

        The files lie in the private root and vanish with it.
        """
        self._apt("apt-get", "install", "--download-only", "--yes", *packages)
        return sorted((self.root / "cache/archives").glob("*.deb"))

    def _apt(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        command = [program, "-q", "-c", str(self.root / "apt.conf"), *arguments]
        return call(
            command,
            what=f"{program} {arguments[0]} for {self.arch} from Debian {self.suite}",
            hint=f"the mirror is {find_mirror()}; another is set by {MIRROR_VARIABLE}=URL",
            cwd=cwd,
        )


@contextmanager
def debian(suite: str, arch: str) -> Iterator[Archive]:
    """Open `suite` ("bookworm") for `arch` ("arm64"): the lists are fetched on entry, all is removed on exit.

    The mirror is $GOSPAN_DEBIAN_MIRROR, else the one that the system's own sources name for Debian, else
    Debian's official one. Raises VmError when the lists can't be fetched or aren't signed by Debian.
    """
    require("apt-get", "dpkg-deb", "debian-archive-keyring")
    sys.stderr.write(f"fetching packages of Debian {suite} for {arch}\n")
    with tempfile.TemporaryDirectory(prefix="gospan-apt-") as directory:
        root = Path(directory)
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (root / folder).mkdir(parents=True)
        (root / "status").touch()
        (root / "apt.conf").write_text(_APT_CONF.format(root=root, arch=arch))
        keyring = next(path for path in KEYRINGS if path.exists())
        (root / "sources.list").write_text(
            f"deb [arch={arch} targets=Packages signed-by={keyring}] {find_mirror()} {suite} main\n"
        )
        archive = Archive(suite=suite, arch=arch, root=root)
        archive._apt("apt-get", "update", "--error-on=any")
        yield archive


def find_mirror(etc: Path = Path("/etc/apt")) -> str:
    """The Debian mirror to use; `etc` is the system's apt configuration."""
    if configured := os.environ.get(MIRROR_VARIABLE):
        return configured
    sources = [
        etc / "sources.list",
        *sorted(etc.glob("sources.list.d/*.list")),
        *sorted(etc.glob("sources.list.d/*.sources")),
    ]
    for path in sources:
        if path.is_file() and (found := mirror_in(path.read_text(errors="replace"))):
            return found
    return OFFICIAL_MIRROR


def mirror_in(sources: str) -> str | None:
    """The first URI in `sources`, of either format of sources.list(5), that serves one of Debian's suites.

    A repository of another distribution, of a third party or of Debian's security team is passed over.
    """
    return next((uri for uri, suites in _entries(sources) if any(map(_DEBIAN_SUITE.match, suites))), None)


def _entries(sources: str) -> Iterator[tuple[str, list[str]]]:
    """Pairs of a URI and its suites."""
    lines = [line for line in sources.splitlines() if not line.lstrip().startswith("#")]
    for line in lines:
        if one_line := re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+://\S+)\s+(\S+)", line):
            yield one_line[1].rstrip("/"), [one_line[2]]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = {
            name.lower(): value.split() for name, value in re.findall(r"(?m)^([A-Za-z-]+):(.*)$", stanza)
        }
        if fields.get("enabled") != ["no"] and "deb" in fields.get("types", ()):
            for uri in fields.get("uris", ()):
                yield uri.rstrip("/"), fields.get("suites", [])


def unpack(packages: Iterable[Path], *, into: Path) -> None:
    """Unpack .deb files over each other, without running any of their scripts.

    Links that stand for directories (/bin -> usr/bin) are kept and followed.
    """
    into.mkdir(parents=True, exist_ok=True)
    for package in packages:
        data = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
        with data:
            tar = ["tar", "-x", "--keep-directory-symlink", "-C", str(into)]
            done = subprocess.run(
                tar, stdin=data.stdout, capture_output=True, text=True, check=False, timeout=TIMEOUT
            )
        if data.returncode or done.returncode:
            raise VmError(f"{package.name} can't be unpacked: {done.stderr.strip()}")
