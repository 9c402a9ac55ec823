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


def test_what_is_free_is_given_back_and_what_stays_is_not_looked_through_again() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
