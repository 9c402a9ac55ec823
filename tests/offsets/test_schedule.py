"""Schedules: what cron's expressions become, by systemd's own reading of it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from agent.offsets.schedule import calendar


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("", ()),
        ("daily", ("daily",)),
        ("Mon *-*-* 03:00:00 Europe/Berlin", ("Mon *-*-* 03:00:00 Europe/Berlin",)),
        ("0 0 * * *", ("*-*-* 00:00:00",)),
        ("@weekly", ("Sun *-*-* 00:00:00",)),
        ("*/15 3-5 * * 1-5", ("Mon,Tue,Wed,Thu,Fri *-*-* 03,04,05:00,15,30,45:00",)),
        ("5 4 * jan,MAR 7", ("Sun *-01,03-* 04:05:00",)),
        ("10-20/5 0 1 * *", ("*-*-01 00:10,15,20:00",)),
        # crontab(5): with both days restricted either will do.
        ("0 3 1,15 * 0", ("*-*-01,15 03:00:00", "Sun *-*-* 03:00:00")),
        ("0 3 */16 * 0", ("Sun *-*-01,17 03:00:00",)),
    ],
)
def test_schedules(schedule: str, expected: tuple[str, ...]) -> None:
    assert calendar(schedule) == expected
    analyze = shutil.which("systemd-analyze")
    if analyze:
        for one in expected:
            done = subprocess.run([analyze, "calendar", one], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("schedule", "complaint"),
    [
        ("60 * * * *", "'60' is no minute: it goes from 0 to 59"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 0 0 * *", "'0' is no day of the month"),
        ("0 0 * foo *", "'foo' is no month: it goes from 1 to 12 or jan to dec"),
        ("0 0 * * 8", "'8' is no day of the week"),
        ("5-1 * * * *", "5-1 goes backwards"),
        ("*/0 * * * *", "'0' is no step"),
        ("@reboot", "@reboot is no schedule; there are @hourly"),
        ("$(reboot)", "is no schedule: write a cron expression"),
        ("a\nb", "is no schedule"),
        ("5", "is no schedule"),
    ],
)
def test_what_is_no_schedule(schedule: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(").replace("$", r"\$")):
        calendar(schedule)
