"""A running agent, looked at from outside: what it logs, what it costs, what its programs did.

Everything comes from /proc, nothing from the agent itself: its own accounts can be checked against it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
GOSPAN = Path(sys.executable).with_name("gospan")

_TICKS = os.sysconf("SC_CLK_TCK")
_PROGRAM_TYPE_KPROBE = "2"  # enum bpf_prog_type; uprobes are of this type as well


@dataclass(frozen=True, slots=True)
class ProgramRuns:
    """What the kernel counted for uprobe programs while run statistics were enabled."""

    runs: int
    nanoseconds: int

    def __sub__(self, earlier: ProgramRuns) -> ProgramRuns:
        return ProgramRuns(self.runs - earlier.runs, self.nanoseconds - earlier.nanoseconds)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads, dead ones too (/proc/PID/stat; 10 ms steps)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS


def resident_bytes(pid: int, *, peak: bool = False) -> int:
    """VmRSS, or VmHWM for its highest value so far."""
    key = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) << 10
    raise ProcessLookupError(f"process {pid} has ended")


def program_runs(pid: int) -> ProgramRuns:
    """Sum the runs of all uprobe programs a process holds open."""
    programs = {
        info["prog_id"]: ProgramRuns(int(info.get("run_cnt", 0)), int(info.get("run_time_ns", 0)))
        for info in _descriptors(pid)
        if info.get("prog_type") == _PROGRAM_TYPE_KPROBE and "prog_tag" in info
    }
    return ProgramRuns(
        sum(program.runs for program in programs.values()),
        sum(program.nanoseconds for program in programs.values()),
    )


def map_bytes(pid: int) -> int:
    """Sum the kernel memory of all BPF maps a process holds open."""
    maps = {info["map_id"]: int(info["memlock"]) for info in _descriptors(pid) if "map_id" in info}
    return sum(maps.values())


def _descriptors(pid: int) -> Iterator[dict[str, str]]:
    """Read /proc/PID/fdinfo; for BPF objects the kernel shows type, id, memory and runs there."""
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
            yield {key: value.strip() for key, value in pairs}


class Agent:
    """`gospan run` for one executable, by a configuration of its own: the machine's doesn't matter."""

    def __init__(
        self,
        workspace: Path,
        *,
        trace: Path,
        sink: str,
        endpoint: str = "http://localhost:4317",
        environment: Mapping[str, str] = MappingProxyType({}),
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        """Start it; `environment` is added to ours, `wrapper` is what to run it under, such as taskset."""
        configuration = workspace / "gospan.toml"
        configuration.write_text(
            f'[export]\nsink = "{sink}"\nendpoint = "{endpoint}"\n'
            f"[discovery]\ninclude = [{{ exe = {json.dumps(str(trace))} }}]\n"
            '[log]\nformat = "json"\n'
        )
        self.log = workspace / "gospan.log"
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "GOSPAN_"))
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*wrapper, str(GOSPAN), "run", "--config", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=log,
                env={**inherited, **environment},
            )

    @property
    def pid(self) -> int:
        """Its process; a wrapper has become it by exec."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """False once it has ended, for whatever reason."""
        return self.process.poll() is None

    def stop(self, *, timeout: float = 15) -> None:
        """End it as systemd does; kill it if that takes longer than `timeout` seconds."""
        if self.running:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def complaint(self) -> str:
        """The last lines it logged, for an error message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
