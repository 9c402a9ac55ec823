"""What the agent does to stay small, in a process of its own: it changes that process for good."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from agent.memory import give_back, keep_small, settle

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_small()
kept = [[number] for number in range(50_000)]
settle()
assert gc.get_freeze_count() >= len(kept)
before = resident()
room = [bytes(600) for _ in range(100_000)]
assert resident() > before + (40 << 20)
del room
give_back()
assert resident() < before + (10 << 20), (before, resident())
"""

DISASSEMBLER = """
import re
from pathlib import Path
from agent.executable.disassembler import disassembler
from agent.memory import give_back, settle

def resident():
    mappings = re.findall(r"libcapstone.so$.*?^Rss: +(\\d+) kB$.*?^Anonymous: +(\\d+) kB$",
                          Path("/proc/self/smaps").read_text(), re.MULTILINE | re.DOTALL)
    return sum(int(pages) - int(anonymous) for pages, anonymous in mappings)

def nop():
    (one,) = disassembler("amd64").disasm(b"\\x90", 0)
    return one.mnemonic

for rest in (settle, give_back):
    assert nop() == "nop"
    assert resident() > 500, resident()
    rest()
    assert resident() < 100, resident()
assert nop() == "nop"
"""


def test_what_is_free_is_given_back_and_what_stays_is_not_looked_through_again() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_of_the_disassembler_only_what_is_not_in_its_file_stays() -> None:
    subprocess.run([sys.executable, "-c", DISASSEMBLER], check=True)
