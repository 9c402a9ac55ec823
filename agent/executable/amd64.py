"""x86-64 code, as far as probes need it: where a function can be probed on entry, and where it returns.

What the kernel does with a probed instruction is in arch/x86/kernel/uprobes.c: it refuses some (is_prefix_bad,
good_insns_64), emulates a few (branch_setup_xol_ops, push_setup_xol_ops; pushes since 4.16), and single-steps the rest.
"""

import re
from collections.abc import Iterator, Sequence

from agent.executable.disassembler import capstone, details, disassembler, x86
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

_PADDING = b"\xcc"
_RET = b"\xc3"

_SCRATCH = frozenset(
    {
        x86.X86_REG_EFLAGS,
        x86.X86_REG_R12,
        x86.X86_REG_R12D,
        x86.X86_REG_R13,
        x86.X86_REG_R13D,
        x86.X86_REG_RIP,
    }
)
"""Registers that hold no argument, receiver, closure context or g in Go's ABI (cmd/compile/abi-internal.md)."""

_HOLDS_NO_RESULT = _SCRATCH | {
    x86.X86_REG_RDX,
    x86.X86_REG_EDX,
    x86.X86_REG_DX,
    x86.X86_REG_DL,
    x86.X86_REG_R12B,
    x86.X86_REG_R13B,
    x86.X86_REG_R15,
    x86.X86_REG_R15D,
    x86.X86_REG_XMM15,
}
"""Those that a function leaves nothing in for its caller: the closure context's among them."""

_RECEIVER = frozenset({x86.X86_REG_RAX, x86.X86_REG_EAX, x86.X86_REG_AX, x86.X86_REG_AL, x86.X86_REG_AH})
"""The first argument's."""

_ARGUMENTS = (
    ("rax", "eax", "ax", "al", "ah"),
    ("rbx", "ebx", "bx", "bl", "bh"),
    ("rcx", "ecx", "cx", "cl", "ch"),
    ("rdi", "edi", "di", "dil"),
    ("rsi", "esi", "si", "sil"),
    *((f"r{number}", f"r{number}d", f"r{number}w", f"r{number}b") for number in range(8, 12)),
)
"""The registers that arguments come in, in their order, by all of their names."""

_ARGUMENT = {name: number for number, names in enumerate(_ARGUMENTS, 1) for name in names}

_ON_STACK = re.compile(r"(?:(\w+) ptr )?\[rsp(?: \+ (\w+))?\](?:, (\w+))?")
_READING = frozenset({"cmp", "test", "call", "jmp", "push"})
"""Instructions whose first operand may lie in memory, and is not written to."""

_SIZES = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "xmmword": 16}

_LEGACY_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3})
_BAD_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0xF0})
_BAD_OPCODES = frozenset(
    b"\x06\x07\x0e\x16\x17\x1e\x1f\x27\x2f\x37\x3f\x60\x61\x62\x6c\x6d\x6e\x6f\x82\x9a\xcc\xcd\xce\xcf"
    b"\xd4\xd5\xd6\xe4\xe5\xe6\xe7\xea\xec\xed\xee\xef\xf1\xf4\xfa\xfb"
)
"""The zeros of good_insns_64; an opcode that begins with 0f always passes it."""


def is_emulated(code: bytes) -> bool:
    """Whether the kernel emulates the instruction with these bytes, instead of single-stepping it.

    Forms with prefixes are left out, but for the one push has: kernels differ there and Go's compiler emits none.
    """
    first = code[0]
    if len(code) == 1:
        return first == 0x90 or 0x50 <= first <= 0x57
    if first == 0x41:
        return len(code) == 2 and 0x50 <= code[1] <= 0x57
    return first in (0xE8, 0xE9, 0xEB) or 0x70 <= first <= 0x7F or (first == 0x0F and 0x80 <= code[1] <= 0x8F)


def is_refused(code: bytes) -> bool:
    """Whether the kernel refuses a uprobe on the instruction with these bytes."""
    at = 0
    while at < len(code) - 1 and code[at] in _LEGACY_PREFIXES:
        at += 1
    if not _BAD_PREFIXES.isdisjoint(code[:at]):
        return True
    if at < len(code) - 1 and code[at] & 0xF0 == 0x40:
        at += 1
    return code[at] in _BAD_OPCODES


def decode(code: bytes, address: int) -> list[Instruction]:
    """Return the instructions of a function's body, without the padding behind it.

    Raises NoPlaceError if a byte is none.
    """
    found = [
        Instruction(at, code[at - address : at - address + size], mnemonic, operands)
        for at, size, mnemonic, operands in disassembler("amd64").disasm_lite(code, address)
    ]
    end = found[-1].address + len(found[-1].code) if found else address
    if end != address + len(code):
        raise NoPlaceError(f"its body can't be decoded at {end:#x}")
    # As instructions and not as bytes: a jump's last byte may look like padding.
    while found and found[-1].code == _PADDING:
        found.pop()
    if not found:
        raise NoPlaceError("its body is empty")
    return found


def returns(body: list[Instruction]) -> list[Instruction]:
    """Return the instructions by which the function returns."""
    return [instruction for instruction in body if instruction.code == _RET]


def call_target(instruction: Instruction) -> int | None:
    """The address of the function that a direct call calls; None for everything else."""
    code = instruction.code
    if len(code) != 5 or code[0] != 0xE8:
        return None
    return instruction.address + 5 + int.from_bytes(code[1:], "little", signed=True)


def is_call(instruction: Instruction) -> bool:
    """Whether an instruction calls a function, known or not."""
    return instruction.mnemonic == "call"


def jump_targets(body: Sequence[Instruction]) -> frozenset[int]:
    """Where the direct jumps of a body lead to."""
    jumps = (jump(instruction) for instruction in body if instruction.mnemonic[0] == "j")
    return frozenset(jump.target for jump in jumps if jump is not None)


def keeps_results(body: Sequence[Instruction]) -> Iterator[bool]:
    """Say of instructions behind a call whether they go on to the next and leave its results in their registers."""
    for detail in details("amd64", body):
        yield not _leaves(detail) and _HOLDS_NO_RESULT.issuperset(detail.regs_access()[1])


def keeps_receiver(body: Sequence[Instruction]) -> Iterator[bool]:
    """Say of instructions whether they go on to the next and leave a function's first argument in its register."""
    for detail in details("amd64", body):
        yield not _leaves(detail) and _RECEIVER.isdisjoint(detail.regs_access()[1])


def goes_on(body: Sequence[Instruction]) -> Iterator[bool]:
    """Say of instructions whether they go on to the next in any case, and call nothing."""
    for detail in details("amd64", body):
        yield not _leaves(detail)


def kept_arguments(body: Sequence[Instruction]) -> dict[int, int]:
    """Where a function stores its register arguments: see Body.kept_arguments."""
    frame = 0
    stored: dict[int, int] = {}
    gone: set[int] = set()
    for detail, one in zip(details("amd64", body[: PROLOGUE + STORES]), body, strict=False):
        if frame and _leaves(detail):
            break
        written = {detail.reg_name(register) for register in detail.regs_access()[1]}
        if "rsp" in written and one.mnemonic in ("sub", "add"):
            if frame:
                break
            frame = abs(int(one.operands.rpartition(" ")[2], 0))
        place = _ON_STACK.fullmatch(one.operands)
        if frame and place and one.mnemonic == "mov" and place[1] == "qword":
            number = _ARGUMENT.get(place[3])
            offset = int(place[2] or "0", 0)
            if number is not None and number not in gone:
                stored.setdefault(number, offset)
        gone |= {_ARGUMENT[name] for name in written if name in _ARGUMENT}
    rest = body[: restart_block(body, _jumps(body))]
    return kept(stored, frame, _stores(rest), _loads(rest))


def _stores(body: Sequence[Instruction]) -> Iterator[tuple[int, int]]:
    """Where the instructions of a body write to the stack, or may do so: the offset, and how many bytes."""
    for one in body:
        if one.mnemonic in _READING:
            continue
        place = _ON_STACK.search(one.operands)
        if place and (one.mnemonic == "lea" or not place.start()):
            yield int(place[2] or "0", 0), _SIZES.get(place[1], 64) if place[1] else TAKEN


def _loads(body: Sequence[Instruction]) -> Iterator[int]:
    """From where on the stack the instructions of a body read words: the offsets."""
    for one in body:
        place = _ON_STACK.search(one.operands) if one.mnemonic == "mov" else None
        if place and place.start() and place[1] == "qword":
            yield int(place[2] or "0", 0)


def _jumps(body: Sequence[Instruction]) -> dict[int, Jump]:
    found = (
        (instruction.address, jump(instruction)) for instruction in body if instruction.mnemonic[0] == "j"
    )
    return {address: to for address, to in found if to is not None}


def jump(instruction: Instruction) -> Jump | None:
    """Where a direct jump goes; None for everything else."""
    code = instruction.code
    if len(code) == 2 and (code[0] == 0xEB or 0x70 <= code[0] <= 0x7F):
        relative = code[1:]
    elif (len(code) == 5 and code[0] == 0xE9) or (
        len(code) == 6 and code[0] == 0x0F and 0x80 <= code[1] <= 0x8F
    ):
        relative = code[-4:]
    else:
        return None
    target = instruction.address + len(code) + int.from_bytes(relative, "little", signed=True)
    return Jump(target, conditional=code[0] not in (0xEB, 0xE9))


def entry(body: list[Instruction]) -> Entry:
    """Return the best instruction for an entry probe: `PUSHQ BP` behind the stack check, from Go 1.21 on."""
    ends = map(_ends_search, details("amd64", body[:PROLOGUE]))
    return choose_entry(body, jumps=_jumps(body), is_emulated=is_emulated, ends_search=ends)


def _leaves(detail: capstone.CsInsn) -> bool:
    return any(
        detail.group(group) for group in (capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET)
    )


def _ends_search(detail: capstone.CsInsn) -> bool:
    if _leaves(detail):
        return True
    if not _SCRATCH.issuperset(detail.regs_access()[1]):
        return True
    return any(op.type == x86.X86_OP_MEM and op.access & capstone.CS_AC_WRITE for op in detail.operands)
