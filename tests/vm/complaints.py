"""Faults that the kernel tells of, such as no program may cause."""

# ruff: noqa: T201 (for programs of the terminal)

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_FAULT = re.compile(r"\bWARNING: |\bBUG: |\bOops\b|general protection fault")


def complaints() -> Iterator[str]:
    """What the kernel's log tells of faults in the kernel, such as those that a program may not cause."""
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            try:
                record = os.read(log, 8192).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:  # older records made way for newer ones: go on with those
                continue
            # "priority,number,microseconds,flags;text", Documentation/ABI/testing/dev-kmsg
            text = record.partition(";")[2].partition("\n")[0]
            if _FAULT.search(text):
                yield text
    finally:
        os.close(log)


def told() -> int:
    """Print all complaints, and give how many there are."""
    lines = list(complaints())
    for line in lines:
        print(f"  the kernel complains: {line}")
    return len(lines)
