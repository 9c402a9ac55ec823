"""What systemd is told of updates: drop-ins (systemd.unit(5)) for gospan-offsets.timer and gospan-offsets.service.

The service has few rights and can't read the configuration, nor need it: the settings that concern it are in its
environment, and files that it needs are given to it by the service manager (systemd.exec(5), "Credentials").
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.config import OffsetsUpdate, UpdateMode
from agent.offsets.schedule import calendar

TIMER = "gospan-offsets.timer"
SERVICE = "gospan-offsets.service"

_TIMER_FILE = f"{TIMER}.d/50-schedule.conf"
_SERVICE_FILE = f"{SERVICE}.d/50-settings.conf"

_HEADER = "# Written by `gospan offsets schedule` from [offsets.update]; run that again after a change.\n"

_CREDENTIALS = {
    "ca_file": "offsets-ca",
    "password_file": "offsets-password",
    "docker_config": "offsets-docker-config",
    "public_key": "offsets-public-key",
}
"""Settings that are files, and under which name the service gets them (agent/offsets/active.py, credential)."""


class UnitsError(Exception):
    """Systemd can't be told: the message says why."""


def drop_ins(update: OffsetsUpdate, directory: str) -> dict[str, str]:
    """Give the drop-ins by their names; none if nothing is to be fetched on a schedule.

    `directory` is where updates are installed.
    """
    events = calendar(update.schedule)
    if update.mode is UpdateMode.OFF or not events:
        return {}
    # The empty assignment takes back what the packaged unit has.
    timer = ["[Timer]", "OnCalendar=", *(f"OnCalendar={event}" for event in events)]
    service = ["[Service]", _environment("GOSPAN_OFFSETS_DIRECTORY", directory)]
    for name in ("mode", "url", "image", "username"):
        value = getattr(update, name)
        text = value.value if isinstance(value, UpdateMode) else value
        if text:
            service.append(_environment(f"GOSPAN_OFFSETS_UPDATE_{name.upper()}", text))
    for name, credential in _CREDENTIALS.items():
        if path := getattr(update, name):
            service.append(f"LoadCredential={credential}:{_escaped(path)}")
    return {
        _TIMER_FILE: _HEADER + "\n".join(timer) + "\n",
        _SERVICE_FILE: _HEADER + "\n".join(service) + "\n",
    }


def _environment(name: str, value: str) -> str:
    quoted = _escaped(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'Environment="{name}={quoted}"'


def _escaped(text: str) -> str:
    """Keep % from being read as a specifier."""
    return text.replace("%", "%%")


def apply(files: Mapping[str, str], units: Path) -> Iterator[str]:
    """Write the drop-ins, remove those that are no more, and start or stop the timer. Gives what was done, in words.

    Raises UnitsError.
    """
    try:
        for name in (_TIMER_FILE, _SERVICE_FILE):
            path = units / name
            if name in files:
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                unfinished = path.with_name(f".{path.name}")
                unfinished.write_text(files[name])
                unfinished.chmod(0o644)
                unfinished.replace(path)
                yield f"wrote {path}"
            elif path.exists():
                path.unlink()
                yield f"removed {path}"
    except OSError as error:
        raise UnitsError(f"{error.filename or units}: {error.strerror}; it takes root") from None
    if not Path("/run/systemd/system").exists():  # sd_booted(3)
        yield f"systemd doesn't run here: {TIMER} was neither started nor stopped"
        return
    _systemctl("daemon-reload")
    _systemctl("enable" if files else "disable", "--now", TIMER)
    if files:
        _systemctl("restart", TIMER)
    state = (
        "runs: `systemctl list-timers` says when it is next" if files else "is stopped: nothing is fetched"
    )
    yield f"{TIMER} {state}"


def _systemctl(*words: str) -> None:
    try:
        done = subprocess.run(
            ["systemctl", *words],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnitsError(f"systemctl {' '.join(words)}: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UnitsError(f"systemctl {' '.join(words)}: {said[-1] if said else 'failed without a word'}")
