from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.conftest import POWERLESS, ROOT, Gospan, environment, gospan_process


def test_mistakes_in_the_configuration_are_one_a_line(gospan: Gospan, tmp_path: Path) -> None:
    path = tmp_path / "gospan.toml"
    path.write_text('[export]\nendpont = "http://x"\ntimeout = "soon"\n')
    result = gospan("run", "--config", str(path), "--endpoint", "ftp://x")
    assert (result.status, result.out) == (2, "")
    lines = result.err.splitlines()
    assert len(lines) == 3
    assert lines[0] == f"gospan: {path}:2: unknown key 'endpont' in [export]; did you mean 'endpoint'?"
    assert all(line.startswith("gospan: ") for line in lines)
    result = gospan("run", "--config", f"{tmp_path}/none")
    assert (result.status, result.err) == (
        2,
        f"gospan: command line: --config: there is no file {tmp_path}/none\n",
    )
    result = gospan("run", "--set", "export.timeout")
    assert (result.status, result.err) == (
        2,
        "gospan: command line: --set wants section.key=value, such as export.timeout=5s, not 'export.timeout'\n",
    )


@pytest.mark.kernel
def test_without_privileges_it_says_so() -> None:
    result = gospan_process("run", "--traces-exporter", "none", wrapper=POWERLESS)
    assert (result.status, result.out) == (1, "")
    assert "BPF programs can't be loaded, so nothing can be traced" in result.err
    assert "Traceback" not in result.err


@pytest.mark.kernel
def test_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    path = tmp_path / "gospan.toml"
    path.write_text('[discovery]\ninclude = [{ exe = "/nothing" }]\n[log]\nformat = "json"\n')
    command = [sys.executable, "-m", "agent", "run", "--config", str(path), "--traces-exporter", "none"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment({})
    ) as process:
        assert process.stderr is not None
        try:
            assert any('"gospan is tracing"' in line for line in process.stderr)
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(20) == 0, rest
        finally:
            process.kill()
    assert "Traceback" not in rest
