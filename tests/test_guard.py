"""Files with probes in them that are touched, removed and written over, with real programs."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import agent.guard
from tests.support.golang import build
from tests.support.http import serving
from tests.support.memory import in_file, in_memory, places
from tests.support.processes import request
from tests.support.tracing import Tracing

pytestmark = pytest.mark.kernel


def test_a_file_that_is_touched_while_it_runs(rig: Tracing, program: Path) -> None:
    with serving(program) as server:
        rig.until_started(server.pid)
        os.utime(program)
        rig.tracer.scan()
        rig.tracer.scan()
        assert rig.traced(program) == [server.pid]
        assert rig.executables(program) == 1
        rig.until_spans(server.pid, request(server))


def test_a_removed_file_keeps_its_probes_as_long_as_it_runs(rig: Tracing, program: Path) -> None:
    with serving(program) as server:
        rig.until_started(server.pid)
        program.unlink()
        rig.tracer.files_changed()
        rig.until_spans(server.pid, request(server))
    rig.until(lambda: not rig.executables(program), "the probes come off")
    assert rig.log.of(program)[-1] == f"no longer tracing {program}: its file was removed"


def test_a_file_that_nothing_runs_and_that_is_removed(rig: Tracing, program: Path) -> None:
    with serving(program) as server:
        rig.until_started(server.pid)
    rig.until_untraced(program)
    assert rig.executables(program) == 1
    program.unlink()
    rig.tracer.files_changed()
    assert rig.executables(program) == 0


def test_a_file_that_is_written_over(rig: Tracing, program: Path) -> None:
    with serving(program) as server:
        rig.until_started(server.pid)
    rig.until_untraced(program)
    offsets = places(program)
    with subprocess.Popen(["cp", build("http_server", go="1.21.13"), program]) as writer:
        # Whoever writes has to wait until the probes are off.
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.3)
        assert rig.executables(program) == 1
        rig.tracer.files_changed()
        assert rig.executables(program) == 0
    assert writer.returncode == 0
    with serving(program) as server:
        assert in_memory(server.pid, offsets) == in_file(program, offsets)
    with serving(program) as server:
        rig.until_started(server.pid)
        rig.until_spans(server.pid, request(server))
        (executable,) = (one for one in rig.tracer.executables if one.path == str(program))
        assert executable.plan.go_version == "go1.21.13"


def test_a_file_that_is_written_over_where_writers_can_not_be_made_to_wait(
    rig: Tracing, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lease(_: int) -> None:
        raise OSError(errno.EINVAL, "")

    monkeypatch.setattr(agent.guard, "lease", no_lease)
    with serving(program) as server:
        rig.until_started(server.pid)
    rig.until_untraced(program)
    warnings = [event for level, event, _ in rig.log.lines if level == "warning" and str(program) in event]
    assert len(warnings) == 1
    assert "in place" in warnings[0]
    shutil.copyfile(build("http_server", go="1.21.13"), program)
    rig.tracer.files_changed()
    assert rig.executables(program) == 0
    with serving(program) as server:
        rig.until_started(server.pid)
        rig.until_spans(server.pid, request(server))


def test_a_file_that_was_written_over_unnoticed(
    rig: Tracing, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither lease nor inotify: it is seen when it is run again."""

    def refused(*_: object) -> int:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(agent.guard, "lease", refused)
    monkeypatch.setattr(rig.tracer.watch, "add", refused)
    with serving(program) as server:
        rig.until_started(server.pid)
    rig.until_untraced(program)
    shutil.copyfile(build("http_server", go="1.21.13"), program)
    assert rig.executables(program) == 1
    with subprocess.Popen([program], stdout=subprocess.DEVNULL) as started:
        rig.until_started(started.pid)
        started.kill()
    (executable,) = (one for one in rig.tracer.executables if one.path == str(program))
    assert executable.plan.go_version == "go1.21.13"
