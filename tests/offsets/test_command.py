"""`gospan offsets`, as a user calls it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from agent.cli import main
from tests.support import golang
from tests.support.golang import NEWEST, REPOSITORY

TABLE = REPOSITORY / "offsets.json"


def gospan(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["offsets", *words])
    captured = capfd.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def server() -> str:
    return str(golang.build("http_server", go=NEWEST))


def test_verify_agrees_with_a_program(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = gospan(capfd, "verify", server)
    assert (status, err) == (0, "")
    assert out.endswith(f" fields compared, 0 differ; go{NEWEST}, {TABLE}\n")
    assert len(out.splitlines()) == 1


def test_verify_prints_each_field_if_asked_to(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = gospan(capfd, "verify", "--all", server)
    assert f"net/http.Request.RequestURI: type information 192, table 192 ({NEWEST}): agrees\n" in out


def test_verify_prints_differences_and_fails(
    server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = json.loads(TABLE.read_text())
    table["modules"]["std"]["offsets"]["net/http.Request.RequestURI"][-1]["offset"] = 200
    table["modules"]["std"]["offsets"]["net/http.Header:group_size"][-1]["offset"] = 320
    changed = tmp_path / "offsets.json"
    changed.write_text(json.dumps(table))
    status, out, _ = gospan(capfd, "verify", server, "--table", str(changed))
    assert status == 1
    assert out.splitlines()[:2] == [
        f"net/http.Header:group_size: type information 328, table 320 ({NEWEST}): differs",
        f"net/http.Request.RequestURI: type information 192, table 200 ({NEWEST}): differs",
    ]
    assert " 2 differ; " in out


def test_verify_takes_a_process(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen([server], stdout=subprocess.PIPE) as process:
        try:
            while Path(f"/proc/{process.pid}/exe").readlink() != Path(server):
                time.sleep(0.01)
            status, out, _ = gospan(capfd, "verify", str(process.pid))
        finally:
            process.kill()
    assert status == 0
    assert f"0 differ; go{NEWEST}" in out


def test_verify_says_which_version_the_table_lacks(
    server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = {
        "schema": 1,
        "generated": "2026-01-01T00:00:00Z",
        "modules": {"std": {"versions": [], "unavailable": {NEWEST: "it burst"}, "offsets": {}}},
    }
    path = tmp_path / "offsets.json"
    path.write_text(json.dumps(table))
    status, out, _ = gospan(capfd, "verify", server, "--table", str(path))
    assert status == 0
    assert out.splitlines()[0] == f"the table hasn't std {NEWEST}: it burst"
    assert out.splitlines()[1].startswith("0 fields compared")


def test_verify_of_no_go_program(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = gospan(capfd, "verify", "/bin/sh")
    assert (status, out) == (1, "")
    assert err.startswith("gospan: /bin/sh: has no Go build info")


@pytest.mark.parametrize("action", [("verify", "/bin/sh"), ("show",), ("build", "--since")])
def test_a_damaged_table_is_a_sentence(
    action: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "offsets.json"
    path.write_text("{")
    words = [*action, str(path)] if action[-1] == "--since" else [*action, "--table", str(path)]
    status, out, err = gospan(capfd, *words)
    assert (status, out) == (1, "")
    assert err.startswith(f"gospan: {path}: is damaged: ")
    assert len(err.splitlines()) == 1


def test_show_says_what_is_covered(capfd: pytest.CaptureFixture[str]) -> None:
    status, out, err = gospan(capfd, "show")
    assert (status, err) == (0, "")
    assert out.startswith(f"table      {TABLE}\nfrom       this gospan\ngenerated  20")
    assert "\nstd\n  versions     " in out
    assert "\ngolang.org/x/net\n  versions     " in out
    assert "net/http.Request.Method" not in out


def test_show_lists_fields_if_asked_to(capfd: pytest.CaptureFixture[str]) -> None:
    _, out, _ = gospan(capfd, "show", "--fields")
    assert "  net/http.Request.Method\n        0  1.19 to 1.2" in out


def test_build_without_go_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    output = tmp_path / "offsets.json"
    status, _, err = gospan(capfd, "build", "--state", str(tmp_path / "state"), "-o", str(output))
    assert status == 1
    assert err == "gospan: there is no go command; install Go 1.21 or later, any release will do\n"
    assert not output.exists()


@pytest.mark.parametrize(
    "words", [(), ("build", "--jobs", "0"), ("build", "--jobs", "many"), ("verify",), ("dance",)]
)
def test_mistakes_in_the_command_line(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["offsets", *words])
    assert stop.value.code == 2
    assert capfd.readouterr().err.startswith("gospan: ")
