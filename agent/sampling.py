"""OpenTelemetry's samplers as the programs take them: the decision is made in the kernel, where a trace begins."""

from __future__ import annotations

from collections.abc import Callable

from agent.config import Sampler, Sampling

_KIND = {
    Sampler.ALWAYS_ON: ("SAMPLER_ALWAYS_ON",),
    Sampler.ALWAYS_OFF: ("SAMPLER_ALWAYS_OFF",),
    Sampler.TRACEIDRATIO: ("SAMPLER_RATIO",),
    Sampler.PARENTBASED_ALWAYS_ON: ("SAMPLER_ALWAYS_ON", "SAMPLER_PARENT_BASED"),
    Sampler.PARENTBASED_ALWAYS_OFF: ("SAMPLER_ALWAYS_OFF", "SAMPLER_PARENT_BASED"),
    Sampler.PARENTBASED_TRACEIDRATIO: ("SAMPLER_RATIO", "SAMPLER_PARENT_BASED"),
}

_ALL = (1 << 64) - 1


def encode_sampler(sampling: Sampling, constant: Callable[[str], int]) -> dict[str, int]:
    """Give the members `sampler` and `ratio` of struct process (bpf/process.h).

    A trace is sampled where the low 64 bits of its id, which are random, are below `ratio` of 2^64: the same ids as
    OpenTelemetry's TraceIdRatioBased samplers choose (specification, "Trace SDK", TraceIdRatioBased).
    """
    return {
        "sampler": sum(constant(name) for name in _KIND[sampling.name]),
        "ratio": min(round(sampling.arg * (1 << 64)), _ALL),
    }
