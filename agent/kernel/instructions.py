"""Programs of a few instructions, written by hand to find out whether a kernel takes them.

Encoding: Documentation/bpf/standardization/instruction-set.rst. Helpers: enum bpf_func_id in
include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import struct

LOOP = 181
"""The number of the helper bpf_loop."""

_PROBE_WRITE_USER = 36
_GET_NS_CURRENT_PID_TGID = 120
_GET_ATTACH_COOKIE = 174


def _instruction(code: int, *, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | to, offset, value)


def _set(register: int, value: int) -> bytes:
    return _instruction(0xB7, to=register, value=value)


def _stack_address(register: int) -> bytes:
    """Point a register to 8 bytes of zeros on the stack."""
    return (
        _instruction(0x7A, to=10, offset=-8)  # *(u64 *)(r10 - 8) = 0
        + _instruction(0xBF, to=register, source=10)
        + _instruction(0x07, to=register, value=-8)
    )


def _call(helper: int) -> bytes:
    return _instruction(0x85, value=helper)


RETURN_0 = _set(0, 0) + _instruction(0x95)
"""Does nothing."""

GET_COOKIE = _call(_GET_ATTACH_COOKIE) + RETURN_0
"""bpf_get_attach_cookie(ctx), which is in r1 from the start."""

WRITE_USER = _set(1, 0) + _stack_address(2) + _set(3, 8) + _call(_PROBE_WRITE_USER) + RETURN_0
"""bpf_probe_write_user(NULL, stack, 8); only ever loaded, never run."""

TRANSLATE_PID = (
    _set(1, 0) + _set(2, 0) + _stack_address(3) + _set(4, 8) + _call(_GET_NS_CURRENT_PID_TGID) + RETURN_0
)
"""bpf_get_ns_current_pid_tgid(0, 0, stack, 8)"""
