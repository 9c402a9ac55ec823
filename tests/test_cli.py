from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agent import __version__
from agent.cli import COMMANDS, main
from tests.commands.conftest import ROOT, environment, gospan_process
from tests.support import golang


def test_version() -> None:
    for words in (("version",), ("--version",), ("-V",)):
        result = gospan_process(*words)
        assert (result.status, result.out, result.err) == (0, f"gospan {__version__}\n", "")


def test_version_and_help_import_nothing_heavy() -> None:
    """What the daemon needs takes most of a second to import."""
    script = (
        "import sys; from agent.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "main(['version'])\n"
        "print(*sorted(sys.modules), sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = set(done.stderr.splitlines())
    assert "agent.commands.version" in loaded
    assert not loaded & {"agent.config", "agent.plan", "agent.kernel", "google.protobuf", "structlog", "grpc"}


def test_inspect_imports_nothing_of_the_daemon() -> None:
    server = golang.build("http_server")
    script = (
        f"import sys; from agent.cli import main; main(['inspect', {str(server)!r}]); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "agent.plan" in loaded
    assert not loaded & {"agent.start", "agent.daemon", "grpc", "structlog", "agent.kernel.programs"}


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: gospan {name}")
    assert max(map(len, out.splitlines())) <= 110
    with pytest.raises(SystemExit):
        main(["--help"])
    assert f"    {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["insect"], "there is no command 'insect'; did you mean inspect?"),
        (["zzz"], f"there is no command 'zzz'; there are {', '.join(one.name for one in COMMANDS)}"),
        (["--config", "x"], "there is no command 'x'; there are"),
        (["--quiet"], "there is no option --quiet before the command"),
        (["inspect"], "the following arguments are required: PATH|PID"),
        (["inspect", "a", "--jsn"], "unrecognized arguments: --jsn"),
        (["inspect", "a", "--js"], "unrecognized arguments: --js"),
        (["check", "--set"], "argument --set: expected one argument"),
    ],
)
def test_mistakes_in_the_command_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"gospan: {message}")
    assert err.splitlines()[1].startswith("Try `gospan")


def test_no_command_is_a_mistake_that_shows_the_help() -> None:
    result = gospan_process()
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("usage: gospan ")


BROKEN = """
import sys
import agent.commands.version
from agent.cli import main

def broken(arguments):
    raise LookupError("nobody thought of this\\x1b[2J")

agent.commands.version.run = broken
sys.exit(main(["version"]))
"""


def test_bug_is_one_line_and_a_traceback_only_if_asked_for() -> None:
    def run(**extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", BROKEN],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment(extra),
            check=False,
        )

    plain = run()
    assert (plain.returncode, plain.stdout) == (70, "")
    [line] = plain.stderr.splitlines()
    assert line.startswith("gospan: LookupError: nobody thought of this\\x1b[2J at <string>:")
    assert line.endswith("this is a bug in gospan; GOSPAN_DEBUG=1 in the environment shows where it is")
    full = run(GOSPAN_DEBUG="1")
    assert full.returncode == 70
    assert full.stderr.startswith("Traceback (most recent call last):")


def test_reader_that_has_had_enough() -> None:
    server = golang.build("http_server")
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "agent", "inspect", str(server)],
            stdout=write,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
