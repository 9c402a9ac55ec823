from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.discovery.watch import IN_ATTRIB, IN_MODIFY, FileWatch, is_awaited, lease


@pytest.fixture
def watch() -> Iterator[FileWatch]:
    made = FileWatch()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "program"
    made.write_bytes(b"program")
    return made


def is_readable(watch: FileWatch) -> bool:
    return bool(select.select([watch], [], [], 0)[0])


def test_what_happens_to_files(watch: FileWatch, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    number, unchanged = watch.add(str(file)), watch.add(str(other))
    assert number != unchanged
    assert watch.changed() == {}
    file.read_bytes()
    assert not is_readable(watch)
    file.write_bytes(b"another")
    assert is_readable(watch)
    assert watch.changed() == {number: IN_MODIFY}
    assert not is_readable(watch)
    os.utime(file)
    assert watch.changed() == {number: IN_ATTRIB}


def test_a_removed_file_that_is_held(watch: FileWatch, file: Path) -> None:
    with file.open("rb") as held:
        number = watch.add(f"/proc/self/fd/{held.fileno()}")
        file.unlink()
        assert watch.changed() == {number: IN_ATTRIB}
        watch.remove(number)
        watch.remove(number)


def test_a_file_that_is_not_there(watch: FileWatch, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        watch.add(str(tmp_path / "none"))
    assert caught.value.filename == str(tmp_path / "none")


def test_closing_twice_gives_the_signal_back() -> None:
    before = signal.getsignal(signal.SIGIO)
    watch = FileWatch()
    assert signal.getsignal(signal.SIGIO) != before
    watch.close()
    watch.close()
    assert signal.getsignal(signal.SIGIO) == before


@pytest.mark.usefixtures("watch")
def test_a_writer_waits_for_the_end_of_the_lease(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    lease(fd)
    assert not is_awaited(fd)
    assert file.read_bytes() == b"program"
    assert not is_awaited(fd)
    with subprocess.Popen(["cp", "/dev/null", file]) as writer:
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.2)
        assert is_awaited(fd)
        assert file.read_bytes() == b"program"
        os.close(fd)
        assert writer.wait(30) == 0
    assert file.read_bytes() == b""


def test_no_lease_while_somebody_writes(file: Path) -> None:
    with file.open("ab"), file.open("rb") as reader, pytest.raises(BlockingIOError):
        lease(reader.fileno())


@pytest.mark.usefixtures("watch")
def test_a_lease_on_a_program_that_runs(tmp_path: Path) -> None:
    program = tmp_path / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as process:
        with Path(f"/proc/{process.pid}/exe").open("rb") as held:
            lease(held.fileno())
            with subprocess.Popen([program, "60"]) as second:
                second.kill()
            assert not is_awaited(held.fileno())
        process.kill()
