"""Where in a function a probe goes.

A uprobe on an emulated instruction costs a tenth of one that is single-stepped, and the first instruction of a Go
function runs again after its stack has grown. So entry probes go behind the stack check, on the first instruction that
the kernel emulates and before which the arguments are untouched.

What a function gives back is seen cheaper in its caller than at its returns: soon behind a call comes a branch, which
is emulated, and the results are still in their registers.
"""

from bisect import bisect_left
from collections.abc import Collection
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
_AFTER_CALL = 24
"""How many instructions behind a call are looked at."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function as the linker put it: `name` as found (it may be vendored), `size` in bytes up to the next one."""

    name: str
    address: int
    size: int
    file_offset: int


_EPILOGUE = 6
"""How many instructions a path may have that does nothing but return."""

_GIVING_UP = 12
"""How many it may have that returns somebody else's error: that has to be moved to other registers."""


At = Literal["entry", "return", "call", "after", "work", "failure", "tail"]
"""When a probe runs: when a function is called or returns; when it calls another one, or has the results of that; when
it gives up because of those; when it returns those of its last call as they are; or when it goes on behind a first test
that may let it return at once.
"""


@dataclass(frozen=True, slots=True)
class Place:
    """An instruction to put a uprobe on.

    `emulated`: the kernel doesn't single-step it. `after_stack_check`: it runs once a call; otherwise a stack that has
    to grow makes it run twice, and what it triggers must bear that. A return runs once.
    """

    symbol: str
    at: At
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

    def work(self) -> Place:
        """Where to probe the calls that a first test lets through, as `if closed { return }` does the first Close only:
        the first emulated instruction behind it, with the receiver still in its register.

        Where that can't be told, where every call is probed. Raises NoPlaceError as that does.
        """
        everywhere = self.entry()
        jumped_to = self._architecture.jump_targets(self._instructions)
        start = next(
            index for index, one in enumerate(self._instructions) if one.address == everywhere.address
        )
        following = self._instructions[start + 1 : start + 1 + _AFTER_CALL]
        tested = False
        for one, keeps in zip(following, self._architecture.keeps_receiver(following), strict=False):
            jump = self._architecture.jump(one)
            if one.address in jumped_to:
                break
            if tested and self._architecture.is_emulated(one.code):
                return self._place(one, "work", emulated=True, once=True)
            if jump is not None and jump.conditional and self._returns_at_once(jump.target):
                tested = True
            elif not keeps:
                break
        return everywhere

    def _returns_at_once(self, address: int) -> bool:
        """Whether nothing happens from `address` on, but that the function returns."""
        returns = {one.address for one in self._architecture.returns(self._instructions)}
        start = next(
            (index for index, one in enumerate(self._instructions) if one.address == address),
            len(self._instructions),
        )
        for one in self._instructions[start : start + _EPILOGUE]:
            if one.address in returns:
                return True
            if self._architecture.is_emulated(one.code):  # every jump and every call is
                return False
        return False

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

    def calls(self, callees: Collection[int]) -> tuple[Place, ...]:
        """Where to probe calls that the function makes of those at these addresses: the call instructions."""
        return tuple(
            self._place(
                instruction, "call", emulated=self._architecture.is_emulated(instruction.code), once=True
            )
            for instruction in self._instructions
            if self._architecture.call_target(instruction) in callees
        )

    def after_calls(self, callees: Collection[int]) -> tuple[Place, ...]:
        """Where to probe the results of such calls: for each call the first emulated instruction that is reached from
        there only, and with the results as they were left. Raises NoPlaceError if a call has none.
        """
        jumped_to = self._architecture.jump_targets(self._instructions)
        places: list[Place] = []
        for index, instruction in enumerate(self._instructions):
            if self._architecture.call_target(instruction) not in callees:
                continue
            following = self._instructions[index + 1 : index + 1 + _AFTER_CALL]
            for one, keeps in zip(following, self._architecture.keeps_results(following), strict=False):
                if one.address in jumped_to:
                    break
                if self._architecture.is_emulated(one.code):
                    places.append(self._place(one, "after", emulated=True, once=True))
                    break
                if not keeps:
                    break
            if not places or places[-1].address <= instruction.address:
                raise NoPlaceError(
                    f"{self._function.name}: nothing behind a call at {instruction.address:#x} is emulated"
                )
        return tuple(places)

    def failures(self, callees: Collection[int]) -> tuple[Place, ...]:
        """Where to probe calls of those at these addresses that make the function give up, `if err != nil` as a rule:
        for each call the first instruction of that way, with the results as they were left.

        A call that is not followed by such a test has none.
        """
        places: list[Place] = []
        for index, instruction in enumerate(self._instructions):
            if self._architecture.call_target(instruction) in callees:
                place = self._failure(index)
                if place is not None:
                    places.append(place)
        return tuple(places)

    def _failure(self, call: int) -> Place | None:
        following = self._instructions[call + 1 : call + 1 + _AFTER_CALL]
        for index, (one, keeps) in enumerate(
            zip(following, self._architecture.keeps_results(following), strict=False), call + 1
        ):
            jump = self._architecture.jump(one)
            if jump is not None and jump.conditional:
                ways = [way for way in (self._index_of(jump.target), index + 1) if self._gives_up(way)]
                if len(ways) != 1 or not self._is_reached_from(ways[0], index):
                    return None
                first = self._instructions[ways[0]]
                if self._architecture.is_refused(first.code):
                    return None
                emulated = self._architecture.is_emulated(first.code)
                return self._place(first, "failure", emulated=emulated, once=True)
            if not keeps:
                return None
        return None

    def tails(self) -> tuple[Place, ...]:
        """Where to probe that the function returns what another one has returned: the returns to which no other way
        leads than that straight from behind a call.
        """
        jumped_to = self._architecture.jump_targets(self._instructions)
        places: list[Place] = []
        for index, call in enumerate(self._instructions):
            if not self._architecture.is_call(call):
                continue
            way = self._instructions[index + 1 : index + 1 + _GIVING_UP]
            returns = {one.address for one in self._architecture.returns(way)}
            for one, goes_on in zip(way, self._architecture.goes_on(way), strict=False):
                if one.address in jumped_to:
                    break
                if one.address in returns:
                    emulated = self._architecture.is_emulated(one.code)
                    places.append(self._place(one, "tail", emulated=emulated, once=True))
                if not goes_on:
                    break
        return tuple(places)

    def _gives_up(self, start: int) -> bool:
        """Whether the function does nothing from this instruction on, by its index, but return."""
        way = self._instructions[start : start + _GIVING_UP]
        returns = {one.address for one in self._architecture.returns(way)}
        for one, goes_on in zip(way, self._architecture.goes_on(way), strict=False):
            if one.address in returns:
                return True
            if not goes_on:
                return False
        return False

    def _is_reached_from(self, start: int, test: int) -> bool:
        """Whether the only way to an instruction is by the conditional jump `test`; both are indexes."""
        address = self._instructions[start].address
        leading = [
            one.address
            for one in self._instructions
            if (jump := self._architecture.jump(one)) is not None and jump.target == address
        ]
        if start == test + 1:
            return not leading
        before = self._instructions[start - 1 : start]
        jump = self._architecture.jump(before[0]) if before else None
        comes_to_it = before and not (
            self._architecture.returns(before) or (jump is not None and not jump.conditional)
        )
        return leading == [self._instructions[test].address] and not comes_to_it

    def _index_of(self, address: int) -> int:
        """Of the instruction at an address; behind the last one where there is none."""
        found = bisect_left(self._instructions, address, key=lambda one: one.address)
        if found < len(self._instructions) and self._instructions[found].address != address:
            return len(self._instructions)
        return found

    def kept_arguments(self) -> dict[int, int]:
        """Where the function keeps what it is given in registers, for as long as it runs: how many bytes from its stack
        pointer, by the register's number, from 1 on in the order of Go's ABI.

        Only what it stores at its beginning, to where it stores nothing else.
        """
        found: dict[int, int] = self._architecture.kept_arguments(self._instructions)
        return found

    def _place(self, instruction: Instruction, at: At, *, emulated: bool, once: bool) -> Place:
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
