"""OpenTelemetry's samplers as the programs take them: the decision is made in the kernel, where a trace begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from agent.config import Sampler, Sampling

_KIND = {
    Sampler.ALWAYS_ON: ("SAMPLER_ALWAYS_ON",),
    Sampler.ALWAYS_OFF: ("SAMPLER_ALWAYS_OFF",),
    Sampler.TRACEIDRATIO: ("SAMPLER_RATIO",),
    Sampler.PARENTBASED_ALWAYS_ON: ("SAMPLER_ALWAYS_ON", "SAMPLER_PARENT_BASED"),
    Sampler.PARENTBASED_ALWAYS_OFF: ("SAMPLER_ALWAYS_OFF", "SAMPLER_PARENT_BASED"),
    Sampler.PARENTBASED_TRACEIDRATIO: ("SAMPLER_RATIO", "SAMPLER_PARENT_BASED"),
}

_BY_RATIO = frozenset({Sampler.TRACEIDRATIO, Sampler.PARENTBASED_TRACEIDRATIO})

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


def own_sampling(environ: Mapping[str, str], otherwise: Sampling) -> tuple[Sampling, str]:
    """Read the sampler that a traced process has in its own environment; give `otherwise` where it has none.

    The second value says what is wrong with it, for the log; what is wrong is ignored, and its argument is 1 then
    (OpenTelemetry specification, "Environment Variable Specification", General SDK Configuration).
    """
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if not name:
        return otherwise, ""
    try:
        sampler = Sampler(name)
    except ValueError:
        return otherwise, f"its OTEL_TRACES_SAMPLER is ignored: there is no sampler {name!r}"
    text = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    own = replace(otherwise, name=sampler, arg=1.0)
    if sampler not in _BY_RATIO or not text:
        return own, ""
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        return own, f"its OTEL_TRACES_SAMPLER_ARG is ignored: {text!r} is no number from 0 to 1"
    return replace(own, arg=ratio), ""
