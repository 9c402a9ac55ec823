"""The one exception of this package."""

from __future__ import annotations

import errno as errno_names
import os

ENOTSUPP = 524
"""The kernel's internal "not supported", which leaks to user space here and there (include/linux/errno.h)."""


class KernelError(Exception):
    """The kernel, or libbpf on its behalf, refused something.

    `message` names the thing that was refused, `errno` is the kernel's reason (0 where there is none) and
    `hint` is the remedy, empty where none is known. `str()` is all three as one sentence.
    """

    def __init__(self, message: str, *, errno: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.errno = errno
        self.hint = hint

    def __str__(self) -> str:
        text = self.message
        if self.errno:
            text += f": {describe(self.errno)}"
        if self.hint:
            text += f" ({self.hint})"
        return text


def describe(code: int) -> str:
    """Give "Operation not permitted (EPERM)" for 1."""
    if code == ENOTSUPP:
        return "Operation is not supported (ENOTSUPP)"
    name = errno_names.errorcode.get(code, str(code))
    return f"{os.strerror(code)} ({name})"
