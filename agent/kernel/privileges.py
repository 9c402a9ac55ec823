"""What this process may do, as far as that can be read: capabilities and the kernel's lockdown."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class MissingCapability:
    """A capability that this process lacks, and what that costs."""

    name: str
    cost: str


_ADMIN = 21
_CAPABILITIES = {
    # number in include/uapi/linux/capability.h: name, what its lack costs
    1: ("CAP_DAC_OVERRIDE", "no probes by tracefs"),
    2: ("CAP_DAC_READ_SEARCH", "no executables and environments of other users"),
    19: ("CAP_SYS_PTRACE", "no processes of other users"),
    _ADMIN: ("CAP_SYS_ADMIN", "no probes by perf events on kernels since mid 2025, no context into requests"),
    24: ("CAP_SYS_RESOURCE", "the service needs LimitMEMLOCK=infinity"),
    38: ("CAP_PERFMON", "no tracing programs"),
    39: ("CAP_BPF", "no BPF at all"),
}
_IN_ADMIN = frozenset((38, 39))
"""These are parts of CAP_SYS_ADMIN since Linux 5.8, and were it before."""


def missing_capabilities(status: str, release: tuple[int, int, int]) -> tuple[MissingCapability, ...]:
    """Give what lacks among the effective capabilities; `status` is the text of /proc/PID/status."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    needed = set(_CAPABILITIES)
    if effective >> _ADMIN & 1 or release < (5, 8, 0):
        needed -= _IN_ADMIN
    if release >= (5, 11, 0):
        needed.discard(24)  # BPF memory isn't locked memory any more
    return tuple(
        MissingCapability(*_CAPABILITIES[number]) for number in sorted(needed) if not effective >> number & 1
    )


def lockdown(path: Path = Path("/sys/kernel/security/lockdown")) -> str:
    """Give the state of the kernel's lockdown, such as "integrity"; empty if there is none."""
    try:
        found = re.search(r"\[(\w+)\]", path.read_text())
    except OSError:
        return ""
    return found[1] if found and found[1] != "none" else ""
