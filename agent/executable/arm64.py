"""A64 code, as far as probes need it: where a function can be probed on entry, and where it returns.

What the kernel does with a probed instruction is in arch/arm64/kernel/probes/decode-insn.c: it simulates branches and
PC-relative loads, refuses what can't run elsewhere (aarch64_insn_is_steppable), and single-steps the rest. The masks
below are the architecture's; the kernel's stand in arch/arm64/include/asm/insn.h.
"""

import re
import struct
from collections.abc import Iterator, Sequence

from agent.executable.disassembler import capstone, details, disassembler
from agent.executable.errors import NoPlaceError
from agent.executable.instructions import (
    PROLOGUE,
    STORES,
    TAKEN,
    Entry,
    Instruction,
    Jump,
    choose_entry,
    kept,
    restart_block,
)

_RET = b"\xc0\x03\x5f\xd6"

_SIMULATED = (
    (0x7C000000, 0x14000000),  # b, bl
    (0xFF000010, 0x54000000),  # b.cond
    (0x7E000000, 0x34000000),  # cbz, cbnz
    (0x7E000000, 0x36000000),  # tbz, tbnz
    (0x1F000000, 0x10000000),  # adr, adrp
    (0xBF000000, 0x18000000),  # ldr (literal)
    (0xFF000000, 0x98000000),  # ldrsw (literal)
    (0xFFFFFC1F, 0xD61F0000),  # br
    (0xFFFFFC1F, 0xD63F0000),  # blr
    (0xFFFFFC1F, 0xD65F0000),  # ret
)
"""(mask, value) of the instructions arm_probe_decode_insn has a handler for."""

_UNSTEPPABLE = (
    (0x1C000000, 0x14000000),  # branches, exceptions, system instructions
    (0x3B000000, 0x18000000),  # loads of literals
    (0x3F000000, 0x08000000),  # exclusive loads and stores
)
_NOP = 0xD503201F

_SCRATCH = frozenset({"x16", "w16", "x17", "w17", "x27", "w27", "nzcv"})
"""What Go's stack check uses: registers that hold no argument (cmd/compile/abi-internal.md: R16, R17, R27)."""

_HOLDS_NO_RESULT = _SCRATCH | {f"{size}{number}" for size in "wx" for number in range(19, 27)}
"""Those that a function leaves nothing in for its caller (results: R0 to R15)."""

_RECEIVER = frozenset({"x0", "w0"})
"""The first argument's."""

_STORES = frozenset({"str", "stp", "stur", "strb", "strh", "sturb", "sturh"})
_COMPARES = frozenset({"cmp", "cmn", "tst", "nop"})
_HARMLESS = frozenset({"ldr", "sub", "subs", "add", "adds", "mov", "movz", "movn", "movk", "orr"})
"""Instructions that write no memory; Go makes its stack check of these."""


_ON_STACK = re.compile(r"\[sp(?:, #(\w+))?\](!?)")
_TAKEN = re.compile(r"\w+, sp(?:, #(\w+))?")
_FRAME = re.compile(r"str x30, \[sp, #-(\w+)\]!|sub sp, sp, #(\w+)|sub x20, sp, #(\w+)")


def is_emulated(code: bytes) -> bool:
    """Whether every kernel simulates this instruction, instead of single-stepping it."""
    (word,) = struct.unpack("<I", code)
    return any(word & mask == value for mask, value in _SIMULATED)


def is_refused(code: bytes) -> bool:
    """Whether the kernel refuses a uprobe on this instruction; a few hints it takes are counted as refused."""
    (word,) = struct.unpack("<I", code)
    return (
        not is_emulated(code) and word != _NOP and any(word & mask == value for mask, value in _UNSTEPPABLE)
    )


def decode(code: bytes, address: int) -> list[Instruction]:
    """Return the instructions of a function's body, zeros behind it left out.

    Text is given to the first few and to returns.

    Raises NoPlaceError if the body isn't made of whole instructions or the first few aren't valid.
    """
    if address % 4 or len(code) % 4:
        raise NoPlaceError(f"its body at {address:#x} isn't made of whole instructions")
    words = [code[at : at + 4] for at in range(0, len(code), 4)]
    while words and words[-1] == b"\0\0\0\0":
        words.pop()
    texts = [text[2:] for text in disassembler("arm64").disasm_lite(b"".join(words[:PROLOGUE]), address)]
    if not words or len(texts) < min(len(words), PROLOGUE):
        raise NoPlaceError(f"its body can't be decoded at {address + 4 * len(texts):#x}")
    texts += [("ret" if word == _RET else "", "") for word in words[PROLOGUE:]]
    return [
        Instruction(address + 4 * index, word, *text)
        for index, (word, text) in enumerate(zip(words, texts, strict=True))
    ]


def returns(body: list[Instruction]) -> list[Instruction]:
    """Return the instructions by which the function returns."""
    return [instruction for instruction in body if instruction.code == _RET]


def call_target(instruction: Instruction) -> int | None:
    """The address of the function that a direct call calls; None for everything else."""
    word: int = struct.unpack("<I", instruction.code)[0]
    if word & 0xFC000000 != 0x94000000:
        return None
    field = word & 0x3FFFFFF
    return instruction.address + 4 * (field - (field >> 25 << 26))


def is_call(instruction: Instruction) -> bool:
    """Whether an instruction calls a function, known or not: bl and blr."""
    word: int = struct.unpack("<I", instruction.code)[0]
    return word & 0xFC000000 == 0x94000000 or word & 0xFFFFFC1F == 0xD63F0000


def jump_targets(body: Sequence[Instruction]) -> frozenset[int]:
    """Where the direct jumps of a body lead to."""
    jumps = (jump(instruction) for instruction in body)
    return frozenset(jump.target for jump in jumps if jump is not None)


def keeps_results(body: Sequence[Instruction]) -> Iterator[bool]:
    """Say of instructions behind a call whether they go on to the next and leave its results in their registers."""
    for detail in details("arm64", body):
        harmless = detail.mnemonic in _HARMLESS or detail.mnemonic in _STORES
        yield detail.mnemonic in _COMPARES or (
            harmless and _HOLDS_NO_RESULT.issuperset(map(detail.reg_name, detail.regs_access()[1]))
        )


def keeps_receiver(body: Sequence[Instruction]) -> Iterator[bool]:
    """Say of instructions whether they go on to the next and leave a function's first argument in its register."""
    for detail in details("arm64", body):
        yield detail.mnemonic in _COMPARES | _STORES or (
            not _leaves(detail) and _RECEIVER.isdisjoint(map(detail.reg_name, detail.regs_access()[1]))
        )


def goes_on(body: Sequence[Instruction]) -> Iterator[bool]:
    """Say of instructions whether they go on to the next in any case, and call nothing."""
    for detail in details("arm64", body):
        yield not _leaves(detail)


def kept_arguments(body: Sequence[Instruction]) -> dict[int, int]:
    """Where a function stores its register arguments: see Body.kept_arguments."""
    frame = 0
    stored: dict[int, int] = {}
    gone: set[int] = set()
    for detail in details("arm64", body[: PROLOGUE + STORES]):
        if frame and _leaves(detail):
            break
        mnemonic, operands = detail.mnemonic, detail.op_str
        made = _frame(mnemonic, operands)
        if frame and made:
            break
        frame = frame or made
        place = _ON_STACK.search(operands) if mnemonic in ("str", "stp") else None
        if frame and place and not place[2]:
            for index, name in enumerate(operands[: place.start()].rstrip(", ").split(", ")):
                number = _argument(name) if name.startswith("x") else None
                offset = int(place[1] or "0", 0) + 8 * index
                if number is not None and number not in gone:
                    stored.setdefault(number, offset)
        if mnemonic not in _COMPARES | _STORES:
            names = map(detail.reg_name, detail.regs_access()[1])
            gone |= {number for name in names if (number := _argument(name)) is not None}
    jumps = {one.address: to for one in body if (to := jump(one)) is not None}
    rest = b"".join(one.code for one in body[: restart_block(body, jumps)])
    lines = [(mnemonic, operands) for _, _, mnemonic, operands in disassembler("arm64").disasm_lite(rest, 0)]
    return kept(stored, frame, _stores(lines), _loads(lines))


def _frame(mnemonic: str, operands: str) -> int:
    """How many bytes of stack an instruction makes the frame of; 0: it makes none. Larger frames are made in register
    20, and then taken over (cmd/internal/obj/arm64/obj7.go).
    """
    made = _FRAME.fullmatch(f"{mnemonic} {operands}")
    return int(made[made.lastindex or 0], 0) if made else 0


def _argument(name: str) -> int | None:
    """The number of the argument register of this name, 64 bits wide or 32, from 1 on."""
    number = int(name[1:]) if name[:1] in ("x", "w") and name[1:].isdigit() else 16
    return number + 1 if number < 16 else None


def _stores(lines: Sequence[tuple[str, str]]) -> Iterator[tuple[int, int]]:
    """Where instructions write to the stack, or may do so: the offset, and how many bytes."""
    for mnemonic, operands in lines:
        taken = _TAKEN.fullmatch(operands) if mnemonic in ("add", "mov") else None
        place = _ON_STACK.search(operands) if mnemonic.startswith("st") else None
        if taken:
            yield int(taken[1] or "0", 0), TAKEN
        elif place:
            yield int(place[1] or "0", 0), 16 if mnemonic.startswith("stp") else 8


def _loads(lines: Sequence[tuple[str, str]]) -> Iterator[int]:
    """From where on the stack instructions read words: the offsets."""
    for mnemonic, operands in lines:
        place = _ON_STACK.search(operands) if mnemonic in ("ldr", "ldp") else None
        if place:
            offset = int(place[1] or "0", 0)
            yield from (offset, offset + 8) if mnemonic == "ldp" else (offset,)


def jump(instruction: Instruction) -> Jump | None:
    """Where a direct jump goes; None for everything else."""
    word: int = struct.unpack("<I", instruction.code)[0]
    if word & 0xFC000000 == 0x14000000:
        bits, field = 26, word
    elif word & 0xFF000010 == 0x54000000 or word & 0x7E000000 == 0x34000000:
        bits, field = 19, word >> 5
    elif word & 0x7E000000 == 0x36000000:
        bits, field = 14, word >> 5
    else:
        return None
    field &= (1 << bits) - 1
    offset = field - (field >> (bits - 1) << bits)
    return Jump(instruction.address + 4 * offset, conditional=bits != 26)


def entry(body: list[Instruction]) -> Entry:
    """Return the best instruction for an entry probe: the stack check's `B.LS`, or else the first that is simulated."""
    found = ((instruction.address, jump(instruction)) for instruction in body)
    jumps = {address: jump for address, jump in found if jump is not None}
    ends = map(_ends_search, details("arm64", body[:PROLOGUE]))
    return choose_entry(body, jumps=jumps, is_emulated=is_emulated, ends_search=ends)


def _leaves(detail: capstone.CsInsn) -> bool:
    return any(map(detail.group, (capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET)))


def _ends_search(detail: capstone.CsInsn) -> bool:
    if detail.mnemonic in _COMPARES:  # capstone takes their first operand for a result
        return False
    return detail.mnemonic not in _HARMLESS or not _SCRATCH.issuperset(
        map(detail.reg_name, detail.regs_access()[1])
    )
