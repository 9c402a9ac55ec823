"""Places for probes, against `go tool objdump`."""

import re

import pytest

from agent.executable import Executable, NoPlaceError, Place, amd64, arm64
from agent.executable.places import Body, Function
from tests.executable import truth
from tests.support import golang
from tests.support.golang import NEWEST, VERSIONS

CHECK = re.compile(
    r"CMPQ (SP|R12), 0x1[08]\(R14\)$|CMPQ 0x1[08]\(R14\), (SP|R12)$|LEAQ -?0x[0-9a-f]+\(SP\), R12$"
    r"|MOVQ SP, R12$|SUBQ \$0x[0-9a-f]+, R12$|(JBE|JCS|JB|JC) "
)
"""What a stack check is made of on amd64 (cmd/internal/obj/x86/obj6.go: stacksplit)."""

PATTERN = r"^(net/http|main|context|example.com/allstd/dotted%2ev3)\."

"""The packages whose every function is compared."""


def has_check(body: list[truth.Line]) -> bool:
    return any("runtime.morestack" in line.text for line in body)


def assert_entry_true(go: str, place: Place, body: list[truth.Line]) -> None:
    """The place is the right one of the function's instructions by what Go's own disassembler says of them."""
    at = next((index for index, line in enumerate(body) if line.address == place.address), None)
    assert at is not None, f"{place}: no instruction begins there"
    before, line = body[:at], body[at]
    if at == 0:
        assert place.after_stack_check != has_check(body), place
        return
    assert place.emulated, place
    if has_check(body):
        assert all(CHECK.match(earlier.text) for earlier in before), (place, before)
        if line.text.startswith("J"):
            assert not place.after_stack_check, place
            assert CHECK.match(line.text), (place, line)
            after = body[at + 1]
            assert not after.text.startswith("PUSHQ"), (place, after)
        else:
            assert place.after_stack_check
            assert before[-1].text.startswith("JBE"), (place, before)
    if int(go.split(".")[1]) >= 21 and any(other.text == "PUSHQ BP" for other in body):
        push = next(index for index, other in enumerate(body) if other.text == "PUSHQ BP")
        if all(CHECK.match(earlier.text) for earlier in body[:push]):
            assert at == push, (place, line)


@pytest.mark.parametrize("go", (VERSIONS[0], NEWEST))
def test_places_on_arm64(go: str) -> None:
    """The branch of the stack check, or what is simulated before it in a function that has none; every RET."""
    twin = golang.build("allstd", go=go, arch="arm64", mode="plain", tags=["small"])
    listing = truth.disassembly(twin, go, r"^(net/http\.\(\*|main\.)")
    bodies = {body[0].address: body for copies in listing.values() for body in copies}
    compared = at_check = 0
    with Executable(str(golang.build("allstd", go=go, arch="arm64", tags=["small"]))) as executable:
        assert executable.arch == "arm64"
        for functions in executable.functions(list(listing)).values():
            for function in functions:
                body = [
                    line
                    for line in bodies[function.address]
                    if line.address < function.address + function.size
                ]
                entry = executable.entry_place(function)
                at = next(index for index, line in enumerate(body) if line.address == entry.address)
                if has_check(body):
                    assert re.match(r"(BLS|BHI|BLO) ", body[at].text), (entry, body[at])
                    assert all(re.search(r"R16|R17|R27|BCC|BLO", line.text) for line in body[:at]), (
                        entry,
                        body[:at],
                    )
                    assert entry.emulated
                    assert not entry.after_stack_check
                    at_check += 1
                else:
                    assert entry.after_stack_check
                    assert entry.emulated or at == 0
                returns = executable.return_places(function)
                assert [place.address for place in returns] == [
                    line.address for line in body if line.text == "RET"
                ]
                assert all(place.emulated and place.instruction == "ret" for place in returns)
                compared += 1
    assert compared > 150
    assert at_check > 0.7 * compared


@pytest.mark.parametrize("go", VERSIONS)
def test_places_by_size_of_frame(go: str) -> None:
    names = [
        "main.hugeFrame",
        "main.largeFrame",
        "main.smallFrame",
        "main.noReturn",
        "main.sum",
        "main.manyReturns",
    ]
    with Executable(str(golang.build("allstd", go=go))) as executable:
        functions = executable.functions(names)
        entries = {name: executable.entry_place(functions[name][0]) for name in names}
        returns = {name: len(executable.return_places(functions[name][0])) for name in names}
    pushes = int(go.split(".")[1]) >= 21
    for name in names[:4]:
        assert entries[name].instruction.startswith("push rbp" if pushes else "jbe"), entries[name]
        assert entries[name].after_stack_check == pushes
    assert entries["main.sum"].after_stack_check
    assert returns["main.noReturn"] == 0
    assert returns["main.manyReturns"] >= 3


@pytest.mark.parametrize("go", VERSIONS)
def test_places_in_every_function_of_some_packages(go: str) -> None:
    twin = golang.build("allstd", go=go, mode="plain")
    listing = truth.disassembly(twin, go, PATTERN)
    bodies = {body[0].address: body for copies in listing.values() for body in copies}
    compared = once = 0
    with Executable(str(golang.build("allstd", go=go, mode="strip"))) as executable:
        for functions in executable.functions(list(listing)).values():
            for function in functions:
                body = bodies.get(function.address)
                if body is None:
                    assert function.name.startswith("vendor/"), function
                    continue
                body = [line for line in body if line.address < function.address + function.size]
                entry = executable.entry_place(function)
                assert entry.symbol == function.name
                assert entry.file_offset - function.file_offset == entry.address - function.address
                assert_entry_true(go, entry, body)
                returns = executable.return_places(function)
                assert [place.address for place in returns] == [
                    line.address for line in body if line.text == "RET"
                ]
                compared += 1
                once += entry.after_stack_check and entry.emulated
    assert compared > 800
    assert once > (0.75 * compared if int(go.split(".")[1]) >= 21 else 0)


X86 = {
    "90": (True, False),
    "55": (True, False),
    "4155": (True, False),
    "4855": (False, False),
    "6655": (False, False),
    "eb10": (True, False),
    "7610": (True, False),
    "e900000000": (True, False),
    "e800000000": (True, False),
    "0f8600000000": (True, False),
    "f20f10442418": (False, False),  # movsd
    "493b6610": (False, False),  # cmp rsp, [r14+0x10]
    "c3": (False, False),
    "f3c3": (False, False),
    "f00fb10a": (False, True),  # lock cmpxchg
    "2e0f8600000000": (False, True),  # jbe with a branch hint
    "cc": (False, True),
    "f4": (False, True),
    "0f0b": (False, False),  # ud2: the second table of the kernel isn't reached
    "62f17c481006": (False, True),  # AVX-512
    "c5f877": (False, False),  # vzeroupper
    "64488b0425f8ffffff": (False, False),  # mov rax, fs:[-8]
    "4c8da42400f0ffff": (False, False),
}


@pytest.mark.parametrize("code", X86)
def test_what_the_kernel_does_on_amd64(code: str) -> None:
    data = bytes.fromhex(code)
    assert (amd64.is_emulated(data), amd64.is_refused(data)) == X86[code]


A64 = {
    0x14000001: (True, False),  # b
    0x97FA7E3E: (True, False),  # bl
    0x540005A9: (True, False),  # b.ls
    0x54000010: (False, True),  # bc.eq: newer than the kernel's decoder
    0xB50000A4: (True, False),  # cbnz
    0x36000000: (True, False),  # tbz
    0xF0001A5B: (True, False),  # adrp
    0x58000040: (True, False),  # ldr x0, literal
    0x98000040: (True, False),  # ldrsw
    0x9C000040: (False, True),  # ldr q0, literal
    0xD8000040: (False, True),  # prfm, literal
    0xD61F0000: (True, False),  # br
    0xD65F03C0: (True, False),  # ret
    0xD65F0BFF: (False, True),  # retaa
    0xF9400B90: (False, False),  # ldr x16, [x28, #16]
    0xF81D0FFE: (False, False),  # str x30, [sp, #-48]!
    0xD503201F: (False, False),  # nop
    0xD503203F: (False, True),  # yield
    0xD4000001: (False, True),  # svc
    0xD53BD040: (False, True),  # mrs x0, tpidr_el0
    0xC85F7C20: (False, True),  # ldxr
    0xC8DFFC20: (False, True),  # ldar
}


@pytest.mark.parametrize("word", A64)
def test_what_the_kernel_does_on_arm64(word: int) -> None:
    data = word.to_bytes(4, "little")
    assert (arm64.is_emulated(data), arm64.is_refused(data)) == A64[word]


def body_of(architecture: str, code: str) -> Body:
    """A function made of these bytes."""
    data = bytes.fromhex(code.replace(" ", ""))

    class Code:
        arch = architecture

        def read(self, address: int, size: int) -> bytes:
            return data[address - 0x1000 : address - 0x1000 + size]

    return Body(Code(), Function("f", 0x1000, len(data), 0x400))  # type: ignore[arg-type]


def places(architecture: str, code: str) -> tuple[Place, tuple[Place, ...]]:
    """Entry and returns of a function made of these bytes."""
    body = body_of(architecture, code)
    return body.entry(), body.returns()


@pytest.mark.parametrize(
    ("code", "offset", "once"),
    [
        ("4889d8 c3", 0, True),  # writes AX before anything is emulated
        ("4c8bd8 c3", 0, True),  # R11 holds an argument too
        ("4989dc 55 5d c3", 3, True),  # R12 doesn't
        ("88 03 55 5d c3", 0, True),  # memory an argument points to might be changed
        ("4885c0 7401 90 c3", 3, True),  # a branch on an argument
        ("4885c0 74fb c3", 0, False),  # the same one in a loop: it would count many times
        ("31c0 4885d2 74fb c3", 0, True),
        ("493b6610 7602 5d c3 e800000000 ebf1", 4, False),
        ("493b6610 7603 55 5d c3 e800000000 ebf0", 6, True),
    ],
)
def test_the_search_ends_where_arguments_might_be_gone(code: str, offset: int, once: bool) -> None:
    entry, returns = places("amd64", code)
    assert (entry.address - 0x1000, entry.after_stack_check) == (offset, once)
    assert entry.file_offset == 0x400 + offset
    assert len(returns) == 1


@pytest.mark.parametrize(
    ("architecture", "code", "why"),
    [
        ("amd64", "55 06", "can't be decoded at 0x1001"),
        ("amd64", "55 e8 00", "can't be decoded at 0x1001"),
        ("amd64", "cc cc cc", "empty"),
        ("amd64", "f0 0f b1 0a c3", "uprobes can't be put on its first instruction"),
        ("arm64", "20 7c 5f c8 c0 03 5f d6", "uprobes can't be put on its first instruction"),
        ("arm64", "ff ff ff ff c0 03 5f d6", "can't be decoded at 0x1000"),
        ("arm64", "c0 03 5f", "whole instructions"),
        ("arm64", "00 00 00 00", "can't be decoded"),
    ],
)
def test_a_function_without_a_safe_place_says_why(architecture: str, code: str, why: str) -> None:
    with pytest.raises(NoPlaceError, match=why) as error:
        places(architecture, code)
    assert "f: " in str(error.value)


def test_returns_in_padding_and_jumps_are_no_returns() -> None:
    # The jump's offset is c3, its last byte cc; then a return, then padding.
    _, returns = places("amd64", "eb c3 e9 c3 00 00 cc 31 c0 c3 cc cc cc")
    assert [place.address for place in returns] == [0x1009]


def work(code: str, architecture: str = "amd64") -> tuple[int, str]:
    """How far into the code of a function its calls are probed that do anything, and how that is called."""
    place = body_of(architecture, code).work()
    assert place.emulated
    return place.address - 0x1000, place.at


def test_calls_that_return_at_once_are_left_out() -> None:
    # push rbp; if 0x48(rax) { pop rbp; return }; 0x48(rax) = 1; if 8(rax) ...
    assert work("55 80784800 750e c6404801 488b5008 4885d2 7400 5d c3 5d c3") == (18, "work")
    # b.ls; ldrb w1, [x0, #72]; cbnz w1, exit; strb w2, [x0, #72]; ldr x1, [x0, #8]; cbz x1; ret; exit: ret
    check = "f0030091 09020054 01204139 c1000035 02200139 010440f9 410000b4 c0035fd6 c0035fd6"
    assert work(f"{check} c0035fd6 {'1f2003d5' * 7} efffff17", "arm64") == (24, "work")


@pytest.mark.parametrize(
    "code",
    [
        "55 80784800 7507 488b4008 7400 5d c3 5d c3",  # the receiver is gone
        "55 80784800 7505 4885d2 7400 90 5d c3",  # the path that the test leads to does something
        "55 4885d2 7400 80784800 7502 7400 5d c3 5d c3",  # another test comes first
        "55 80784800 7508 4885d2 90 75fd 5d c3 5d c3",  # the place is reached from behind as well
        "55 5d c3",
    ],
)
def test_where_that_cannot_be_told_every_call_is_probed(code: str) -> None:
    assert work(code) == (0, "entry")


CALL = "e8 fb 0f 00 00"
"""Of the function at 0x2000, where it is the first instruction of one at 0x1000."""


def after_call(code: str, architecture: str = "amd64") -> int:
    """How far into the code of a function the results of its call of 0x2000 are probed."""
    body = body_of(architecture, code)
    (call,) = body.calls({0x2000})
    assert (call.address, call.at, call.emulated) == (0x1000, "call", True)
    (place,) = body.after_calls({0x2000})
    assert (place.at, place.emulated) == ("after", True)
    assert place.file_offset == place.address - 0x1000 + 0x400
    return place.address - 0x1000


def test_results_are_probed_at_the_first_emulated_instruction_behind_a_call() -> None:
    assert after_call(f"{CALL} 48894424 08 4885c0 7401 90 c3") == 13  # stored, tested, jne
    assert after_call(f"{CALL} 488b5424 08 90 c3") == 10  # DX holds no result
    # bl 0x2000; str x0, [sp, #8]; cbz x0
    assert after_call("00040094 e00700f9 400000b4 c0035fd6 c0035fd6", "arm64") == 8


@pytest.mark.parametrize(
    "code",
    [
        f"{CALL} 4889d8 90 c3",  # AX is gone
        f"{CALL} 4531c0 90 c3",  # the lower half of R8 is, so all of it
        f"{CALL} 5d 90 c3",  # BP is none of ours, but better safe than sorry
        f"{CALL} c3",
        f"{CALL} ffe0 90 c3",  # leads elsewhere
        f"{CALL} 4885c0 90 75fd c3",  # the nop is reached from behind as well
    ],
)
def test_results_that_might_be_gone_are_not_probed(code: str) -> None:
    with pytest.raises(NoPlaceError, match="nothing behind a call at 0x1000 is emulated"):
        after_call(code)


@pytest.mark.parametrize("go", [go for go in VERSIONS if go >= "1.22"])
def test_the_results_of_serve_mux_are_probed_cheaply(go: str) -> None:
    caller, callee = "net/http.(*ServeMux).ServeHTTP", "net/http.(*ServeMux).findHandler"
    with Executable(str(golang.build("http_server", go=go))) as executable:
        functions = executable.functions([caller, callee])
        (place,) = executable.after_call_places(functions[caller][0], functions[callee])
        (call,) = executable.call_places(functions[caller][0], functions[callee])
    assert call.emulated
    assert place.emulated
    assert 0 < place.address - call.address < 64


def failure(code: str, architecture: str = "amd64") -> list[int]:
    """How far into the code of a function the ways are on which it gives up behind its call of 0x2000."""
    found = body_of(architecture, code).failures({0x2000})
    assert all(place.at == "failure" and place.after_stack_check for place in found)
    return [place.address - 0x1000 for place in found]


def test_a_call_that_fails_is_probed_where_the_function_gives_up() -> None:
    # test rbx, rbx; jne; call; ret; xor eax, eax; pop rbp; ret
    assert failure(f"{CALL} 4885db 7506 e800000000 c3 31c0 5d c3") == [16]
    # test rbx, rbx; je; xor eax, eax; pop rbp; ret; call
    assert failure(f"{CALL} 4885db 7404 31c0 5d c3 e800000000 c3") == [10]
    # bl 0x2000; cbz x1; mov x0, #0; ret; bl; ret
    assert failure("00040094 610000b4 000080d2 c0035fd6 00000094 c0035fd6", "arm64") == [8]


@pytest.mark.parametrize(
    "code",
    [
        f"{CALL} 4885db 7503 31c0 c3 31c0 5d c3",  # both ways return at once
        f"{CALL} 4885db 7503 e800000000 31c0 5d c3",  # neither does
        f"{CALL} 4885db 7506 e800000000 90 31c0 5d c3",  # the way is that of success as well
        f"{CALL} 31db 4885db 7506 e800000000 c3 31c0 c3",  # the results are gone
        f"{CALL} 4885db 7508 e800000000 75f9 c3 31c0 ffd1 c3",  # it calls something
        f"{CALL} 5d c3",
    ],
)
def test_what_does_not_give_up_has_no_such_place(code: str) -> None:
    assert failure(code) == []


def tail(code: str, architecture: str = "amd64") -> list[int]:
    found = body_of(architecture, code).tails()
    assert {place.at for place in found} <= {"tail"}
    return [place.address - 0x1000 for place in found]


def test_what_another_function_has_returned_is_probed_where_it_is_returned() -> None:
    assert tail(f"{CALL} 4885c0 7402 5d c3 5d ffd1 5d c3") == [16]  # the second call's, by register
    assert tail(f"{CALL} 4885c0 7401 c3 ffd1 c3") == [13]
    # bl 0x2000; cbz x0; blr x2; ret; blr x2; ret
    assert tail("00040094 600000b4 40003fd6 c0035fd6 40003fd6 c0035fd6", "arm64") == [12, 20]
    assert tail("ffd1 7402 ffd1 5d c3 ebfb") == []  # it returns by another way as well


def kept(code: str, architecture: str = "amd64") -> dict[int, int]:
    return body_of(architecture, code).kept_arguments()


def test_arguments_are_kept_where_they_are_stored_once() -> None:
    stores = "4889442420 48895c2428"  # mov 32(rsp), rax; mov 40(rsp), rbx
    restart = "4889442408 48895c2410 e800000000 488b442408 488b5c2410 ebXX"
    code = f"493b6610 7621 55 4889e5 4883ec10 {stores} e800000000 4883c410 5d c3 9090"
    assert kept(f"{code} {restart.replace('XX', 'bc')}") == {1: 0x20, 2: 0x28}
    # sub sp, sp, #32; stp x0, x1, [sp, #40]; bl; add sp, sp, #32; ret
    assert kept("ff8300d1 e08702a9 00000094 ff830091 c0035fd6", "arm64") == {1: 0x28, 2: 0x30}
    # The frame may be made by keeping the return address in it.
    assert kept("fe0f1ef8 e01700f9 00000094 fe0742f8 c0035fd6", "arm64") == {1: 0x28}


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("4883ec10 4889442420 e800000000 4889442420 c3", {}),  # something else comes to lie there
        ("4883ec10 31c0 4889442420 e800000000 c3", {}),  # it is gone
        ("4883ec10 4889442408 e800000000 c3", {}),  # what is handed on is not kept
        ("4883ec10 4889442408 e800000000 488b442408 c3", {1: 8}),  # unless it is read again
        ("4883ec10 4889442420 488d442420 e800000000 c3", {}),  # its address is given away
        ("4883ec10 7405 4889442420 e800000000 c3", {}),  # it is not always stored
        ("4889442420 4883ec10 e800000000 c3", {}),  # from another place of the stack pointer
    ],
)
def test_what_may_be_lost_is_not_kept(code: str, what: dict[int, int]) -> None:
    assert kept(code) == what
