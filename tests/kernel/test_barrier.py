from __future__ import annotations

import pytest

from agent.kernel.barrier import full_barrier


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", None])
def test_barrier_can_be_passed_any_number_of_times(machine: str | None) -> None:
    barrier = full_barrier(machine)
    for _ in range(100_000):
        barrier()


def test_only_x86_does_without() -> None:
    assert full_barrier("x86_64") is full_barrier("x86_64")
    assert full_barrier("aarch64") is not full_barrier("x86_64")
