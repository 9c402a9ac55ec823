from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.kernel import tracefs
from agent.kernel.errors import KernelError
from tests.kernel import build


def test_finding_the_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("proc /proc proc rw 0 0\ntracefs /sys/with\\040blank tracefs rw 0 0\n")
    assert tracefs.find(mounts).path == Path("/sys/with blank")
    mounts.write_text("proc /proc proc rw 0 0\n")
    with pytest.raises(KernelError, match=r"tracefs is not mounted .*mount -t tracefs"):
        tracefs.find(mounts)


def test_start_time_tells_processes_apart() -> None:
    assert tracefs.start_time(os.getpid()) > 0
    child = subprocess.Popen(["true"])
    child.wait()
    assert tracefs.start_time(child.pid) == 0


def test_directory_without_events(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"cannot read .*uprobe_events"):
        tracefs.Tracefs(tmp_path).remove_stale()
    with pytest.raises(KernelError, match=r"cannot make an event for /bin/true at 0x10 in "):
        tracefs.Tracefs(tmp_path).add_uprobe("/bin/true", 16)


@pytest.mark.kernel
def test_events_of_dead_agents_are_removed_and_those_of_the_living_are_not(tracing: tracefs.Tracefs) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from agent.kernel.tracefs import Tracefs\n"
        "tracing = Tracefs(Path(sys.argv[1]))\n"
        "names = [tracing.add_uprobe(sys.argv[2], int(offset)) for offset in sys.argv[3:]]\n"
        "print(*names)\n"
    )
    offsets = [str(place) for place in build.places()[:3]]
    command = [sys.executable, "-c", script, str(tracing.path), build.target(), *offsets]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=build.ROOT)
    left = result.stdout.split()
    assert len(left) == 3
    events = tracing.path / "uprobe_events"
    own = tracing.add_uprobe(build.target(), build.places()[0])
    assert all(name in events.read_text() for name in [*left, own])
    assert tracing.number(own) > 0

    assert tracing.remove_stale() == 3
    assert [name in events.read_text() for name in [*left, own]] == [False, False, False, True]
    tracing.remove(own)
    assert own not in events.read_text()
    with pytest.raises(KernelError, match=f"cannot remove the event {own}"):
        tracing.remove(own)
    with pytest.raises(KernelError, match=r"cannot read .*id"):
        tracing.number(own)
