"""The numbers that the programs take, against the OpenTelemetry SDK's own samplers."""

from __future__ import annotations

import random

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from agent.config import Sampler, Sampling
from agent.kernel import btf
from agent.paths import object_file
from agent.sampling import encode_sampler, own_sampling

CONSTANTS = btf.read(str(object_file("process"))).constants


def encoded(name: Sampler, arg: float = 1.0) -> dict[str, int]:
    return encode_sampler(Sampling(name=name, arg=arg), CONSTANTS.__getitem__)


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 0.1, 0.25, 0.5, 0.999, 1.0])
def test_a_ratio_chooses_the_traces_that_the_sdk_chooses(ratio: float) -> None:
    values = encoded(Sampler.TRACEIDRATIO, ratio)
    sdk = TraceIdRatioBased(ratio)
    dice = random.Random(1)  # noqa: S311 -- the same ids in every run
    bound = values["ratio"]
    for trace_id in [
        1,
        (1 << 64) - 1,
        1 << 64,
        (1 << 128) - 1,
        *(dice.getrandbits(128) for _ in range(20000)),
    ]:
        low = trace_id & (1 << 64) - 1
        chosen = bound == (1 << 64) - 1 or low < bound  # is_sampled (bpf/span.h)
        assert chosen == (sdk.should_sample(None, trace_id, "name").decision is Decision.RECORD_AND_SAMPLE)


def test_every_sampler_has_numbers_of_its_own() -> None:
    numbers = {name: encoded(name)["sampler"] for name in Sampler}
    assert len(set(numbers.values())) == len(Sampler)
    parent_based = CONSTANTS["SAMPLER_PARENT_BASED"]
    for name, number in numbers.items():
        assert bool(number & parent_based) == name.value.startswith("parentbased_")


OTHERWISE = Sampling(name=Sampler.PARENTBASED_TRACEIDRATIO, arg=0.5)


@pytest.mark.parametrize(
    ("sampler", "argument", "name", "arg"),
    [
        ("always_off", "", Sampler.ALWAYS_OFF, 1.0),
        (" ALWAYS_ON ", "0.1", Sampler.ALWAYS_ON, 1.0),
        ("traceidratio", "0.25", Sampler.TRACEIDRATIO, 0.25),
        ("parentbased_traceidratio", "", Sampler.PARENTBASED_TRACEIDRATIO, 1.0),
        ("", "0.25", OTHERWISE.name, OTHERWISE.arg),
    ],
)
def test_the_sampler_of_a_process_of_its_own(sampler: str, argument: str, name: Sampler, arg: float) -> None:
    own = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert own_sampling(own, OTHERWISE) == (Sampling(name=name, arg=arg), "")


@pytest.mark.parametrize(
    ("sampler", "argument", "told", "expected"),
    [
        ("jaeger_remote", "", "OTEL_TRACES_SAMPLER is", OTHERWISE),
        ("traceidratio", "half", "OTEL_TRACES_SAMPLER_ARG is", Sampling(name=Sampler.TRACEIDRATIO)),
        ("traceidratio", "1.5", "OTEL_TRACES_SAMPLER_ARG is", Sampling(name=Sampler.TRACEIDRATIO)),
        ("traceidratio", "nan", "OTEL_TRACES_SAMPLER_ARG is", Sampling(name=Sampler.TRACEIDRATIO)),
    ],
)
def test_what_is_wrong_with_it_is_ignored_and_told(
    sampler: str, argument: str, told: str, expected: Sampling
) -> None:
    own = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    sampling, why = own_sampling(own, OTHERWISE)
    assert sampling == expected
    assert told in why
