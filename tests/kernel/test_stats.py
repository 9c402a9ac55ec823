from __future__ import annotations

import pytest

from agent.kernel.attach import attach
from agent.kernel.errors import KernelError
from agent.kernel.features import Features
from agent.kernel.objects import LoadOptions, load_object
from agent.kernel.stats import counted, program_stats
from tests.kernel import build
from tests.kernel.build import Target

pytestmark = pytest.mark.kernel


def test_every_run_is_counted_while_asked_to(probes: str, target: Target, found: Features) -> None:
    backend = found.backend()
    options = LoadOptions(attach_type=backend.attach_type, programs=["count"])
    with load_object(probes, options) as loaded:
        fd = loaded.program("count").fd
        with attach(backend, fd, build.target(), build.places()):
            target.call(10)
            before = program_stats(fd)
            with counted():
                target.call(100)
            after = program_stats(fd)
            target.call(10)
        assert before.runs == 0
        assert before.run_time_ns == 0
        assert after.runs == 1000
        assert 0 < after.run_time_ns < 1_000_000_000
        assert program_stats(fd).runs == 1000
        assert after.number == before.number > 0
        assert (after.machine_code > 0) == bool(found.jit)


def test_descriptor_that_is_no_program() -> None:
    with pytest.raises(KernelError, match="cannot get the information"):
        program_stats(0)
