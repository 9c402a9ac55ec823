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


_CAPABILITIES = {
    # number in include/uapi/linux/capability.h: name, what its lack costs
    1: ("CAP_DAC_OVERRIDE", "probes can't be attached by tracefs"),
    2: ("CAP_DAC_READ_SEARCH", "executables and environments of other users can't be read"),
    19: ("CAP_SYS_PTRACE", "processes of other users can't be read"),
    21: ("CAP_SYS_ADMIN", "no probes by perf events on kernels since mid 2025, no context into requests"),
    24: ("CAP_SYS_RESOURCE", "before Linux 5.11 the service needs LimitMEMLOCK=infinity"),
    38: ("CAP_PERFMON", "tracing programs can't be loaded (Linux 5.8 and later, without CAP_SYS_ADMIN)"),
    39: ("CAP_BPF", "BPF can't be used (Linux 5.8 and later, without CAP_SYS_ADMIN)"),
}


def missing_capabilities(status: str) -> tuple[MissingCapability, ...]:
    """Give what lacks among the effective capabilities; `status` is the text of /proc/PID/status."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    return tuple(
        MissingCapability(name, cost)
        for number, (name, cost) in _CAPABILITIES.items()
        if not effective >> number & 1
    )


def lockdown() -> str:
    """Give the state of the kernel's lockdown, such as "integrity"; empty if none or unknown."""
    try:
        found = re.search(r"\[(\w+)\]", Path("/sys/kernel/security/lockdown").read_text())
    except OSError:
        return ""
    return found[1] if found and found[1] != "none" else ""
