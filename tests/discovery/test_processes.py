from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agent.discovery import processes
from agent.discovery.processes import FileIdentity, Owner


@pytest.fixture
def procfs(tmp_path: Path) -> Path:
    """A made-up /proc with one process, 7, and what else may be in it."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    made = tmp_path / "proc"
    process = made / "7"
    process.mkdir(parents=True)
    (process / "exe").symlink_to(program)
    (process / "cmdline").write_bytes(b"program\0--port\0" + b"80\0")
    (process / "status").write_bytes(b"Name:\ta b)\nUid:\t1\t4242\t4242\t4242\nGid:\t1\t1\t1\t1\n")
    (made / "8").mkdir()  # a kernel thread, or one that may not be looked at
    for name in ("self", "sys", "1x"):
        (made / name).mkdir()
    return made


def test_finding_processes(procfs: Path) -> None:
    assert sorted(processes.pids(procfs)) == [7, 8]
    assert os.getpid() in set(processes.pids())


def test_looking_at_a_process(procfs: Path, tmp_path: Path) -> None:
    status = (tmp_path / "program").stat()
    file = FileIdentity(status.st_dev, status.st_ino, 4, status.st_mtime_ns)
    found = processes.look(7, procfs)
    assert found == processes.Process(7, str(tmp_path / "program"), file)
    assert processes.identity(7, str(procfs)) == file
    for nobody in (8, 9):
        assert processes.look(nobody, procfs) is None
        assert processes.identity(nobody, str(procfs)) is None
        assert processes.owner(nobody, procfs) is None


def test_a_process_whose_file_was_removed(tmp_path: Path) -> None:
    program = tmp_path / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        before = processes.look(process.pid)
        program.unlink()
        after = processes.look(process.pid)
        process.kill()
        assert before == after
        assert after is not None
        assert after.path == str(program)
        process.wait()
        assert processes.look(process.pid) is None


def test_a_file_by_its_path(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch()
    found = processes.look_at_file(7, str(program))
    assert found == processes.Process(7, str(program), processes.identity_of(program.stat()), ended=True)
    for path in ("", "program", "./program", str(tmp_path / "none")):
        assert processes.look_at_file(7, path) is None


def test_a_file_is_another_after_it_was_written_to(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"one")
    one = processes.identity_of(program.stat())
    program.write_bytes(b"three")
    three = processes.identity_of(program.stat())
    assert one != three
    assert one.same_inode(three)
    other = tmp_path / "other"
    other.write_bytes(b"three")
    assert not processes.identity_of(other.stat()).same_inode(three)


def test_whose_a_process_is(procfs: Path) -> None:
    """The effective user of its status: its directory in /proc is root's where it may not be dumped."""
    assert processes.owner(7, procfs) == Owner("program --port 80", "4242", 4242)
    (procfs / "7" / "cmdline").write_bytes(b"")
    (procfs / "7" / "status").write_bytes(b"Name:\tx\nUid:\t1\t0\t0\t0\n")
    assert processes.owner(7, procfs) == Owner("", "root", 0)
    (procfs / "7" / "cmdline").write_bytes(b"\xff\0" + b"a" * (1 << 20))
    owner = processes.owner(7, procfs)
    assert owner is not None
    assert owner.command_line.startswith("\ufffd a")
    assert len(owner.command_line) == processes._MAX_COMMAND_LINE
    (procfs / "7" / "status").write_bytes(b"")
    assert processes.owner(7, procfs) is None
