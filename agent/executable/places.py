"""Where in a function a probe goes.

A uprobe on an emulated instruction costs a tenth of one that is single-stepped, and the first instruction of a Go
function runs again after its stack has grown. So entry probes go behind the stack check, on the first instruction that
the kernel emulates and before which the arguments are untouched.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from agent.executable import amd64, arm64
from agent.executable.elf import Image
from agent.executable.errors import NoPlaceError
from agent.executable.instructions import Instruction

_ARCHITECTURES: dict[str, ModuleType] = {"amd64": amd64, "arm64": arm64}
_MAX_BODY = 64 << 10
_MAX_RETURNS = 512


@dataclass(frozen=True, slots=True)
class Function:
    """A function as the linker put it: `name` as found (it may be vendored), `size` in bytes up to the next one."""

    name: str
    address: int
    size: int
    file_offset: int


@dataclass(frozen=True, slots=True)
class Place:
    """An instruction to put a uprobe on.

    `emulated`: the kernel doesn't single-step it. `after_stack_check`: it runs once a call; otherwise a stack that has
    to grow makes it run twice, and what it triggers must bear that. A return runs once.
    """

    symbol: str
    at: Literal["entry", "return"]
    address: int
    file_offset: int
    instruction: str
    emulated: bool
    after_stack_check: bool


class Body:
    """A function's code, decoded once. Raises NoPlaceError if it can't be: no probe belongs there."""

    def __init__(self, image: Image, function: Function) -> None:
        if function.size > _MAX_BODY:
            raise NoPlaceError(
                f"{function.name}: its body of {function.size} bytes is too large to be decoded"
            )
        self._function = function
        self._architecture = _ARCHITECTURES[image.arch]
        code = image.read(function.address, function.size)
        try:
            self._instructions: list[Instruction] = self._architecture.decode(code, function.address)
        except NoPlaceError as error:
            raise NoPlaceError(f"{function.name}: {error.what}") from error

    def entry(self) -> Place:
        """Where to probe a call. Raises NoPlaceError if the kernel refuses the only place there is."""
        choice = self._architecture.entry(self._instructions)
        if self._architecture.is_refused(choice.instruction.code):
            raise NoPlaceError(
                f"{self._function.name}: uprobes can't be put on its first instruction ({choice.instruction.text})"
            )
        return self._place(choice.instruction, "entry", emulated=choice.emulated, once=choice.once)

    def returns(self) -> tuple[Place, ...]:
        """Where to probe a return: every return instruction. Empty for a function that never returns by itself."""
        found = self._architecture.returns(self._instructions)
        if len(found) > _MAX_RETURNS:
            raise NoPlaceError(f"{self._function.name}: it returns in {len(found)} places")
        return tuple(
            self._place(
                instruction, "return", emulated=self._architecture.is_emulated(instruction.code), once=True
            )
            for instruction in found
        )

    def _place(
        self, instruction: Instruction, at: Literal["entry", "return"], *, emulated: bool, once: bool
    ) -> Place:
        function = self._function
        return Place(
            function.name,
            at,
            instruction.address,
            function.file_offset + instruction.address - function.address,
            instruction.text,
            emulated,
            once,
        )
