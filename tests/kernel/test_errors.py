from __future__ import annotations

import errno

from agent.kernel.errors import ENOTSUPP, KernelError, describe


def test_sentence_has_the_thing_the_reason_and_the_remedy() -> None:
    error = KernelError("cannot load x", errno=errno.EPERM, hint="CAP_BPF is needed")
    assert str(error) == "cannot load x: Operation not permitted (EPERM) (CAP_BPF is needed)"
    assert str(KernelError("cannot load x")) == "cannot load x"


def test_numbers_without_a_name() -> None:
    assert describe(ENOTSUPP) == "Operation is not supported (ENOTSUPP)"
    assert "(4000)" in describe(4000)
