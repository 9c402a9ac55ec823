"""What an administrator's commands say: apt, systemctl, journalctl, curl. Of the standard library only."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EMULATED = "GOSPAN_VM" in os.environ
"""Whether the processor is emulated, and everything takes several times as long."""
PATIENCE = 600.0 if EMULATED else 60.0


class Unexpected(Exception):  # noqa: N818 -- it is raised as a sentence reads
    """Something isn't as it should be."""


def expect(condition: object, what: str) -> None:
    """Raise Unexpected with `what` was expected, unless it is so."""
    if not condition:
        raise Unexpected(what)


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        expect(time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}")
        time.sleep(0.1)


def call(*command: str, check: bool = True) -> str:
    """Run a command and give what it prints; with `check` it must succeed."""
    environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environ
    )
    if check and done.returncode:
        raise Unexpected(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def apt(action: str, package: str) -> None:
    """Install, remove or purge a package, with no question asked."""
    call(
        "apt-get", action, "--yes", "-q", "--no-install-recommends", "-o", "APT::Sandbox::User=root", package
    )


def systemctl(*words: str) -> str:
    """Run systemctl, which must succeed."""
    return call("systemctl", *words)


def show(unit: str, name: str) -> str:
    """A property of a unit."""
    return systemctl("show", "--value", f"--property={name}", unit).strip()


def main_pid() -> int:
    """The daemon's process, 0 if there is none."""
    return int(show("gospan", "MainPID"))


def is_active() -> bool:
    """Whether the service is up."""
    return show("gospan", "ActiveState") == "active"


def entries(message_id: str, *, since: float) -> list[dict[str, Any]]:
    """The journal's entries of an id, from a time on (seconds since 1970)."""
    lines = call("journalctl", "-o", "json", "--no-pager", f"--since=@{since}", f"MESSAGE_ID={message_id}")
    return [json.loads(line) for line in lines.splitlines()]


def journal(*, since: float = 0) -> str:
    """All messages of the service, and of systemd about it, from a time on."""
    return call("journalctl", "-o", "cat", "--no-pager", f"--since=@{since}", "--unit=gospan")


def processes(word: str) -> list[str]:
    """The command lines that contain a word, but for that of this process and its parents."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended
        if word in line:
            found.append(line.strip())
    return found


def bpf_objects() -> list[str]:
    """Descriptors of BPF programs, maps and links, and of perf events, that any process but systemd has open."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(path.readlink())
        except OSError:
            continue
        if re.search("bpf-|perf_event", target) and path.parts[2] != "1":
            found.append(f"{path}: {target}")
    return found


# Caches of others, which they renew as they please, and what tells of the installation itself.
_NOT_OURS = re.compile(
    r"/(proc|sys|dev|run|tmp|root|former)(/|$)|/var/(cache|log|tmp)/|/var/lib/(apt|dpkg|systemd)/|/etc/(group|gshadow)-$"
)


def files(visible: Path) -> set[str]:
    """All paths of the system, but for what changes by itself and what the test brought along (`visible`)."""
    found = set()
    for directory, names, others in os.walk("/"):
        if _NOT_OURS.match(directory) or Path(directory) == visible:
            names.clear()
            continue
        found |= {str(Path(directory) / name) for name in (*names, *others) if not name.endswith(".pyc")}
    return {path for path in found if not _NOT_OURS.match(path)}
