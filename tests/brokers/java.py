"""Java programs from Maven Central: fetched once by mvn, checked, and kept for every checkout and run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.vm.cache import directory, filling

HERE = Path(__file__).resolve().parent

_ATTEMPTS = 4
_TIMEOUT = 300


def jars(name: str) -> list[Path]:
    """The files that tests/brokers/<name>/pom.xml asks for, with all that they depend on.

    Raises RuntimeError where they can't be had, or are not those that tests/brokers/<name>/jars.sha256 lists.
    """
    wanted = _listed(HERE / name / "jars.sha256")
    digest = hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()[:12]
    home = directory("java") / f"{name}-{digest}"
    if not home.exists():
        with filling(home) as unfinished:
            _fetch(HERE / name / "pom.xml", unfinished)
            _check(unfinished, wanted)
    return [home / one for one in sorted(wanted)]


def _listed(path: Path) -> dict[str, str]:
    """File names and their digests, from a list as sha256sum makes it."""
    return {name: digest for digest, name in (line.split() for line in path.read_text().splitlines())}


def _fetch(pom: Path, into: Path) -> None:
    command = shutil.which("mvn")
    if command is None:
        raise RuntimeError("no mvn command found; run `scripts/packages test`")
    with tempfile.TemporaryDirectory(prefix="gospan-maven-") as repository:
        for attempt in range(_ATTEMPTS):
            done = subprocess.run(
                [
                    *(command, "--batch-mode", "--quiet", "--strict-checksums", "--file", str(pom)),
                    *(f"-Dmaven.repo.local={repository}", f"-DoutputDirectory={into}"),
                    *("-DincludeScope=runtime", "dependency:copy-dependencies"),
                ],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                cwd=into,
            )
            if not done.returncode:
                return
            time.sleep(2**attempt)
    raise RuntimeError(f"mvn can't fetch what {pom} asks for:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _check(into: Path, wanted: dict[str, str]) -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in into.iterdir()}
    if found != wanted:
        different = sorted(name for name, _ in found.items() ^ wanted.items())
        raise RuntimeError(
            f"Maven gave other files than jars.sha256 lists: {', '.join(dict.fromkeys(different))}"
        )
