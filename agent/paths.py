"""Where the agent's own files are: installed, or in a checkout that `make setup` has prepared."""

from __future__ import annotations

import platform
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent
_SHARE = Path("/usr/share/gospan")
_LIBRARY = Path("/usr/lib/gospan")

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """Name this machine's architecture as Go does; as the kernel does where it is none that can be traced."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def object_file(name: str) -> Path:
    """The compiled BPF object of that name for this machine; it need not exist."""
    built = _CHECKOUT / "build" / "bpf" / architecture() / f"{name}.bpf.o"
    return built if built.exists() else _LIBRARY / "bpf" / f"{name}.bpf.o"


def how_to_have(path: Path | str) -> str:
    """What to say where a BPF object isn't there."""
    return (
        f"the BPF object {path} is missing; `make setup` in the source compiles it, packages bring it along"
    )


def packaged_offsets() -> Path:
    """The offset table that came with the agent."""
    checked_out = _CHECKOUT / "offsets.json"
    return checked_out if checked_out.exists() else _SHARE / "offsets.json"
