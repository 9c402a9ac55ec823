"""capstone, for the two architectures that Go programs are read of.

Its package takes the constants of eighteen along, 2 MB; only those of x86 are looked at here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.executable.instructions import Instruction

_UNUSED = (
    *("arm", "arm64", "bpf", "evm", "m680x", "m68k", "mips", "mos65xx", "ppc", "riscv"),
    *("sh", "sparc", "sysz", "tms320c64x", "tricore", "wasm", "xcore"),
)
_names = [f"capstone.{one}_const" for one in _UNUSED] if "capstone" not in sys.modules else []
sys.modules.update((name, ModuleType(name)) for name in _names)
import capstone  # noqa: E402
from capstone import x86  # noqa: E402

for _name in _names:
    del sys.modules[_name]

__all__ = ["capstone", "details", "disassembler", "x86"]

_MODES = {
    "amd64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "arm64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}


@cache
def disassembler(arch: str, *, detail: bool = False) -> capstone.Cs:
    """Return the disassembler of an architecture, by Go's name of it; with `detail`, one that tells the operands.

    Made once: each looks for a module that isn't there, which takes longer than a function's body.
    """
    made = capstone.Cs(*_MODES[arch])
    made.detail = detail
    return made


def details(arch: str, body: Sequence[Instruction]) -> Iterator[capstone.CsInsn]:
    """Take instructions that follow each other apart, one by one: operands, groups, and which registers change."""
    if body:
        code = b"".join(one.code for one in body)
        yield from disassembler(arch, detail=True).disasm(code, body[0].address)
