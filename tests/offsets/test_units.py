"""What systemd is told of updates, by systemd's own reading of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.offsets.conftest import Offsets
from tests.support.golang import REPOSITORY

UNITS = REPOSITORY / "systemd"


def settings(tmp_path: Path, **values: str) -> list[str]:
    for name in ("ca_file", "password_file"):
        (tmp_path / name).write_text("something")
    given = {
        "mode": "image",
        "schedule": "0 3 1,15 * 0",
        "image": "registry.example.com/a%20b:latest",
        "ca_file": str(tmp_path / "ca_file"),
        "username": 'some"body\\',
        "password_file": str(tmp_path / "password_file"),
    } | values
    return [word for name, value in given.items() for word in ("--set", f"offsets.update.{name}={value}")]


def test_drop_ins_come_and_go(offsets: Offsets, tmp_path: Path) -> None:
    units = tmp_path / "units"
    for name in ("gospan-offsets.service", "gospan-offsets.timer"):
        (units / f"{name}.d").mkdir(parents=True)
        text = (UNITS / name).read_text().replace("/usr/bin/gospan", shutil.which("true") or "/bin/true")
        (units / name).write_text(text)
    done = offsets("schedule", "--units", units, *settings(tmp_path))
    assert (done.status, done.err) == (0, "")
    timer, service = units / "gospan-offsets.timer.d", units / "gospan-offsets.service.d"
    assert (timer / "50-schedule.conf").read_text().splitlines()[1:] == [
        "[Timer]",
        "OnCalendar=",
        "OnCalendar=*-*-01,15 03:00:00",
        "OnCalendar=Sun *-*-* 03:00:00",
    ]
    written = (service / "50-settings.conf").read_text()
    assert 'Environment="GOSPAN_OFFSETS_UPDATE_IMAGE=registry.example.com/a%%20b:latest"\n' in written
    assert 'Environment="GOSPAN_OFFSETS_UPDATE_USERNAME=some\\"body\\\\"\n' in written
    assert f"LoadCredential=offsets-password:{tmp_path}/password_file\n" in written
    assert "something" not in written
    analyze = shutil.which("systemd-analyze")
    if analyze:
        for unit in ("gospan-offsets.service", "gospan-offsets.timer"):
            verified = subprocess.run(
                [analyze, "verify", "--man=no", str(units / unit)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert [line for line in verified.stderr.splitlines() if "gospan" in line] == []
            assert verified.returncode == 0
    done = offsets("schedule", "--units", units, *settings(tmp_path, mode="off"))
    assert f"removed {timer}/50-schedule.conf\n" in done.out
    assert list(timer.iterdir()) == list(service.iterdir()) == []


def test_print_changes_nothing(offsets: Offsets, tmp_path: Path) -> None:
    done = offsets("schedule", "--print", "--units", tmp_path / "units", *settings(tmp_path))
    assert f"# {tmp_path}/units/gospan-offsets.timer.d/50-schedule.conf\n" in done.out
    done = offsets("schedule", "--print", *settings(tmp_path, mode="off"))
    assert done.out == "nothing would be written: offsets.update has no mode, or no schedule\n"
    assert not (tmp_path / "units").exists()


def test_a_wrong_schedule_is_told(
    offsets: Offsets, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from agent.cli import main

    words = ["offsets", "schedule", "--config", "/dev/null", *settings(tmp_path, schedule="0 25 * * *")]
    assert main(words) == 2
    assert "offsets.update.schedule '25' is no hour" in capfd.readouterr().err
    assert offsets("schedule", "--units", "/proc/nowhere", *settings(tmp_path)).status == 1
