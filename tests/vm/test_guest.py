import subprocess
from pathlib import Path

import pytest

from tests.vm import guest
from tests.vm.tools import VmError


def test_a_command_arrives_as_it_was_given(tmp_path: Path) -> None:
    home = tmp_path / "a b"
    home.mkdir()
    words = ["it's", "$HOME", "two\nlines", "", "*"]
    show = 'pwd; printf "%s|" "$VARIABLE" "$@"; env | cut -d= -f1; exit 7'
    script = guest._script(["sh", "-c", show, "sh", *words], cwd=home, environment={"VARIABLE": "x 'y' $z"})
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert done.stdout.startswith(f"{home}\nx 'y' $z|it's|$HOME|two\nlines||*|")
    assert set(done.stdout.rpartition("|")[2].split()) <= {"VARIABLE", "PWD", "OLDPWD", "SHLVL", "_"}


def test_a_missing_directory_is_a_failure_not_another_directory(tmp_path: Path) -> None:
    script = guest._script(["true"], cwd=tmp_path / "missing", environment={})
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("name", ["init.sh", "inside.sh"])
def test_the_guest_s_scripts_are_whole(name: str) -> None:
    done = subprocess.run(
        ["sh", "-n", Path(guest.__file__).with_name(name)], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_paths_that_a_shell_would_split_are_refused() -> None:
    assert guest._words([Path("/a"), Path("/b-c.d")]) == "/a /b-c.d"
    with pytest.raises(VmError, match="/a b: "):
        guest._words([Path("/a b")])


def test_the_exit_status_comes_from_the_guest_alone(tmp_path: Path) -> None:
    (tmp_path / "output").write_bytes(b"half a character: \xc3")
    (tmp_path / "status").write_text("7\n")
    result = guest._result(tmp_path, seconds=1.5, problem="no end after 9 s")
    assert (result.exit_status, result.problem, result.seconds) == (7, "", 1.5)
    assert result.output.startswith("half a character: ")


def test_without_one_the_end_of_the_serial_log_is_shown(tmp_path: Path) -> None:
    (tmp_path / "serial.log").write_text("".join(f"line {number}\n" for number in range(100)))
    result = guest._result(tmp_path, seconds=9, problem="no end after 9 s")
    assert (result.exit_status, result.output) == (None, "")
    assert result.problem.startswith("no end after 9 s; ")
    assert result.problem.endswith("line 99")
    assert "line 50" not in result.problem
    assert "without an exit status" in guest._result(tmp_path, seconds=9, problem="").problem


def test_qemu_s_own_failure_and_a_timeout_are_told_apart(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert guest._qemu(["sh", "-c", "exit 0"], timeout=10, log=log) == ""
    assert guest._qemu(["sh", "-c", "echo no such machine; exit 1"], timeout=10, log=log) == (
        "QEMU failed (1): no such machine"
    )
    assert guest._qemu(["sleep", "60"], timeout=0.1, log=log) == "no end after 0.1 s"
