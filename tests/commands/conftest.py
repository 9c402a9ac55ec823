from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import golang

POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""What runs a command without any capability, but as root: a checkout in root's home can be read by nobody else."""

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str


Gospan = Callable[..., Result]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would configure the agent."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "GOSPAN_")) and name != "NO_COLOR"
    } | dict(extra)


def gospan_process(
    *words: str, env: Mapping[str, str] | None = None, wrapper: tuple[str, ...] = ()
) -> Result:
    """Run `gospan WORDS` as a process of its own; `wrapper` is what to run it under."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-m", "agent", *words],
        capture_output=True,
        env=environment(env or {}),
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode())


def as_nobody(action: Callable[[], str]) -> str:
    """What `action` gives in a child of this process that has become an ordinary user, or the error it raised."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            text = action()
        except BaseException as error:  # noqa: BLE001 -- this child has nobody to raise it to
            text = str(error)
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def gospan(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Gospan:
    """Run the command line in this process, which spares its start."""
    from agent.cli import main

    for name in list(os.environ):
        if name.startswith(("OTEL_", "GOSPAN_")):
            monkeypatch.delenv(name)

    def run(*words: str) -> Result:
        capfd.readouterr()
        try:
            status = main(words)
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capfd.readouterr()
        return Result(status, out, err)

    return run


@pytest.fixture(scope="session")
def server() -> Path:
    """A stripped Go HTTP server of the newest release."""
    return golang.build("http_server")


MODULES = {
    "app": {
        "go.mod": """\
module example.com/app

go 1.19

require (
	example.com/near v0.0.0
	example.com/plain v0.0.0
)

replace example.com/near => ../near

replace example.com/plain v0.0.0 => ../plain
""",
        "main.go": """\
package main

import (
	"os"
	"time"

	"example.com/near"
	"example.com/plain"
)

func main() {
	if len(os.Args) > 1 {
		time.Sleep(time.Minute)
	}
	println(near.Name, plain.Name)
}
""",
    },
    "near": {
        "go.mod": "module example.com/near\n\ngo 1.19\n",
        "near.go": 'package near\n\nvar Name = "near"\n',
    },
    "plain": {
        "go.mod": "module example.com/plain\n\ngo 1.19\n",
        "plain.go": 'package plain\n\nvar Name = "plain"\n',
    },
}


@pytest.fixture(scope="session")
def replacing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Go program without any library to trace, whose modules are replaced. Sleeps if it has an argument."""
    root = tmp_path_factory.mktemp("replacing")
    for directory, files in MODULES.items():
        for name, text in files.items():
            path = root / directory / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    # Built in place: the replacements lie beside it.
    target = root / "program"
    subprocess.run(
        [golang.go_command(), "build", "-o", str(target), "."],
        cwd=root / "app",
        env=golang.environment(),
        check=True,
        capture_output=True,
    )
    return target
