"""Programs of tests/apps with other versions of the modules that they use."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.golang import APPS, BUILD, NEWEST, environment, go_command


def with_versions(app: str, versions: Mapping[str, str], *, go: str = NEWEST) -> Path:
    """A copy of a program's sources that requires modules at these versions; `go` is the release that resolves them.

    It is made once: it stays below the builds, under a name made of the sources and versions.
    """
    source = APPS / app
    digest = hashlib.sha256(repr((sorted(versions.items()), go)).encode())
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes())
    newest = "-".join(version for _, version in sorted(versions.items()))
    target = BUILD / "sources" / f"{app}-{newest}-{digest.hexdigest()[:12]}" / app
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        unfinished = target.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished)
        for arguments in (
            ("get", *(f"{module}@v{version}" for module, version in versions.items())),
            ("mod", "tidy"),
        ):
            done = subprocess.run(
                [go_command(), *arguments],
                cwd=unfinished,
                env=environment(go),
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise RuntimeError(f"go {' '.join(arguments)} for {app}:\n{done.stderr}")
        unfinished.rename(target)
    return target
