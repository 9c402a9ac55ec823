"""A Debian booted by its own systemd in namespaces of this machine: seconds, and this machine's kernel."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.vm.guest import RESULTS, Result
from tests.vm.tools import VmError, require

_SCRIPT = Path(__file__).with_name("namespace.sh")
_CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))


def run(
    root: Path,
    command: Sequence[str],
    *,
    name: str,
    cwd: Path,
    env: Mapping[str, str],
    visible: Sequence[Path],
    timeout: float,
) -> Result:
    """Boot the Debian in the directory `root`, which stays as it is, and run `command` in it when that is done.

    The processes, mounts and networks of this machine are out of its sight, but for the directories `visible`.
    The result is in build/vm/`name`. Raises VmError when it can't be started.
    """
    require("unshare", "pivot_root")
    directory = RESULTS / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    variables = [f"{key}={value}" for key, value in {**env, "GOSPAN_RESULTS": str(directory)}.items()]
    (directory / "command").write_text(
        f"cd {shlex.quote(str(cwd))} && exec {shlex.join(['/usr/bin/env', '-i', *variables, *command])}\n"
    )
    with tempfile.TemporaryDirectory(prefix="gospan-system-") as scratch, _cgroup() as cgroup:
        words = [str(_SCRIPT), str(root), scratch, str(directory), *map(str, visible)]
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net", "--fork", "--kill-child"]
        # The shell moves itself, so that systemd begins in a control group of its own.
        shell = f'echo $$ >{shlex.quote(str(cgroup))}/cgroup.procs && exec "$@"'
        began = time.monotonic()
        with (directory / "console.log").open("wb") as log:
            process = subprocess.Popen(
                ["sh", "-c", shell, "sh", "unshare", *namespaces, "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                process.wait(timeout)
                problem = ""
            except subprocess.TimeoutExpired:
                problem = f"no end after {timeout:g} s"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = time.monotonic() - began
    status = directory / "status"
    output = directory / "output"
    return Result(
        exit_status=int(status.read_text()) if status.exists() else None,
        output=output.read_text(errors="replace") if output.exists() else "",
        seconds=seconds,
        problem=problem
        or ("" if status.exists() else (directory / "console.log").read_text(errors="replace")),
        directory=directory,
    )


@contextmanager
def _cgroup() -> Iterator[Path]:
    """A control group (cgroup v2) for one system; it is removed with what the system made below it."""
    top = next((path for path in _CGROUPS if (path / "cgroup.controllers").exists()), None)
    if top is None:
        raise VmError("no cgroup v2 is mounted, and systemd can't do without")
    home = Path(tempfile.mkdtemp(prefix="gospan-system-", dir=top))
    try:
        yield home
    finally:
        deadline = time.monotonic() + 10
        while home.exists() and time.monotonic() < deadline:
            for path in sorted(home.rglob("*"), reverse=True):
                if path.is_dir():
                    with suppress(OSError):
                        path.rmdir()
            with suppress(OSError):
                home.rmdir()
            time.sleep(0.05)
