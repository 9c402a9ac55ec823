"""What amd64.py and arm64.py have in common: an instruction, and the choice of one for an entry probe."""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

PROLOGUE = 16
"""How many instructions from its start on are looked at for a function's entry. A stack check takes 5 at most."""

STORES = 32
"""How many instructions behind those may store arguments."""

TAKEN = 0
"""The size of a store to whatever an instruction takes the address of."""

_MORESTACK = 64
"""How many the path through runtime.morestack back to the start may have: it saves and restores the argument registers.
"""


class Instruction(NamedTuple):
    """A machine instruction: its address, its bytes, and its text in two parts. A tuple, as there are many of them."""

    address: int
    code: bytes
    mnemonic: str
    operands: str

    @property
    def text(self) -> str:
        """What to show of it."""
        return f"{self.mnemonic} {self.operands}".rstrip()


@dataclass(frozen=True, slots=True)
class Jump:
    """Where a direct jump goes, and whether it always does."""

    target: int
    conditional: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """The instruction chosen for an entry probe.

    `once`: it runs once a call, because no stack check follows it. A function whose check fails starts anew.
    """

    instruction: Instruction
    emulated: bool
    once: bool


def choose_entry(
    body: Sequence[Instruction],
    *,
    jumps: Mapping[int, Jump],
    is_emulated: Callable[[bytes], bool],
    ends_search: Iterable[bool],
) -> Entry:
    """Choose the cheapest instruction that every call reaches once, with the arguments as the caller left them.

    That is the first emulated one behind the stack check; where something stops the search before it, the check's own
    branch; else the function's first instruction. `jumps` holds all direct jumps by address. `ends_search` says of each
    instruction from the first on whether the arguments may be gone after it: because it writes memory or a register
    that may hold one, or leads elsewhere.
    """
    start = body[0].address
    restarts = {at for at, to in jumps.items() if to.target == start and not to.conditional}
    loops = {to.target for at, to in jumps.items() if start <= to.target <= at and at not in restarts}
    checked = not restarts
    best = Entry(body[0], emulated=is_emulated(body[0].code), once=checked and start not in loops)
    for instruction, ends in zip(body[:PROLOGUE], ends_search, strict=False):
        address = instruction.address
        if address in loops:
            break
        if is_emulated(instruction.code):
            to = jumps.get(address)
            if to is not None and to.target > address and _leads_to(body, to.target, restarts):
                best = Entry(instruction, emulated=True, once=False)
                checked = True
                continue
            if checked:
                return Entry(instruction, emulated=True, once=True)
        if ends or address in jumps:
            break
    return best


def restart_block(body: Sequence[Instruction], jumps: Mapping[int, Jump]) -> int:
    """The index at which a function's last part begins, which has its stack grow and starts it anew; how long the body
    is where it has no such part.
    """
    start = body[0].address
    restarts = {at for at, to in jumps.items() if to.target == start and not to.conditional}
    for instruction in body[:PROLOGUE]:
        to = jumps.get(instruction.address)
        if to is not None and to.target > instruction.address and _leads_to(body, to.target, restarts):
            return bisect_left(body, to.target, key=lambda one: one.address)
    return len(body)


def kept(
    stored: Mapping[int, int], frame: int, stores: Iterable[tuple[int, int]], loads: Iterable[int]
) -> dict[int, int]:
    """Those words among `stored`, by number and offset, that stay on the stack for as long as the function runs.

    One of `stores`, an offset and a size, writes to them, and only one. They lie behind the frame, where the caller has
    left room for arguments that come in registers, or are read again: what is only handed on to another function may be
    changed by that.
    """
    written, read = list(stores), set(loads)
    return {
        number: at
        for number, at in stored.items()
        if (at > frame or at in read) and sum(_overlaps(at, *store, frame) for store in written) == 1
    }


def _overlaps(at: int, offset: int, size: int, frame: int) -> bool:
    """Whether a store may write to the word at `at`. None reaches from the frame beyond it. By an address that is taken
    of an argument its first two words may be written to (a string's, an interface's), and nothing of the next one.
    """
    if size == TAKEN:
        size = 16 if at > frame else 8
    return offset < at + 8 and at < offset + size and (at > frame) == (offset > frame)


def _leads_to(body: Sequence[Instruction], address: int, restarts: Collection[int]) -> bool:
    """Whether the straight way from `address` on comes to one of the jumps in `restarts`."""
    at = bisect_left(body, address, key=lambda instruction: instruction.address)
    if at == len(body) or body[at].address != address:
        return False
    return any(instruction.address in restarts for instruction in body[at : at + _MORESTACK])
