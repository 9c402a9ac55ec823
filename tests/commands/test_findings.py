from __future__ import annotations

import dataclasses

import pytest

from agent.commands.findings import Level, of_configuration, of_kernel, of_programs, worst
from agent.config import AttachWay, BufferKind, Kernel, load
from agent.kernel.attach import Backend
from agent.kernel.features import Feature, Features, PidNamespace
from agent.kernel.privileges import MissingCapability

YES, NO = Feature(True, "It works."), Feature(False, "It doesn't: no such thing.")

GOOD = Features(
    release=(6, 12, 41),
    machine="x86_64",
    libbpf="v1.5",
    loading=YES,
    ring_buffer=YES,
    uprobe_multi=YES,
    uprobe_perf=YES,
    uprobe_tracefs=YES,
    cookies=YES,
    write_user=YES,
    loops=YES,
    raw_tracepoints=YES,
    btf=YES,
    jit=YES,
    run_time_stats=YES,
    memory_lock=YES,
    pid_namespace=PidNamespace(True, 4, 0xEFFFFFFC),
    pid_translation=YES,
    missing=(),
)


DEFAULTS = Kernel()


def kernel(
    settings: Kernel = DEFAULTS, *, lockdown: str = "", **changes: object
) -> dict[str, tuple[Level, str]]:
    """The findings about a good kernel with changes, by what they are about."""
    found = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]
    return {one.what: (one.level, one.sentence) for one in of_kernel(found, settings, lockdown=lockdown)}


def worst_of(findings: dict[str, tuple[Level, str]]) -> Level:
    return max(level for level, _ in findings.values())


def test_good_kernel() -> None:
    found = kernel()
    assert worst_of(found) is Level.OK
    assert found["release"][1] == "Linux 6.12.41 on x86_64, with libbpf 1.5."
    assert found["backend"][1] == "Probes will be attached by uprobe_multi, the best there is here."
    assert found["buffer"][1] == "Records will come through a ring buffer of 4 MiB."
    assert found["capabilities"][1] == "No capability is missing."
    assert all(sentence.endswith(".") for _, sentence in found.values())
    assert set(GOOD.named()) - set(found) == {"ring_buffer", "pid_translation"}


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("cookies", Level.NOTE),
        ("loops", Level.NOTE),
        ("run_time_stats", Level.NOTE),
        ("uprobe_multi", Level.NOTE),
        ("write_user", Level.LIMIT),
        ("raw_tracepoints", Level.LIMIT),
        ("btf", Level.LIMIT),
        ("jit", Level.LIMIT),
        ("memory_lock", Level.LIMIT),
        ("loading", Level.FAILURE),
    ],
)
def test_what_a_missing_feature_costs(name: str, level: Level) -> None:
    found = kernel(DEFAULTS, lockdown="", **{name: NO})
    assert found[name] == (level, NO.sentence)
    assert worst_of(found) is level


def test_where_nothing_loads_nothing_else_is_guessed() -> None:
    found = kernel(loading=NO, jit=NO, write_user=NO, uprobe_perf=NO)
    assert set(found) == {"release", "loading", "btf", "memory_lock", "capabilities"}


def test_back_end() -> None:
    forced = Kernel(attach=AttachWay.TRACEFS)
    assert kernel(forced)["backend"][1] == "Probes will be attached by tracefs, as configured."
    found = kernel(forced, uprobe_tracefs=NO)
    assert found["backend"] == (Level.FAILURE, f"No program can be attached. {NO.sentence}")
    found = kernel(uprobe_multi=NO, uprobe_perf=NO)
    assert found["backend"] == (Level.OK, "Probes will be attached by tracefs, the best there is here.")
    assert worst_of(found) is Level.NOTE
    found = kernel(uprobe_multi=NO, uprobe_perf=NO, uprobe_tracefs=NO)
    assert found["backend"][0] is Level.FAILURE
    assert {backend.value for backend in Backend} == {way.value for way in AttachWay} - {"auto"}


def test_buffer() -> None:
    assert kernel(ring_buffer=NO)["buffer"] == (Level.NOTE, NO.sentence)
    ring = Kernel(buffer=BufferKind.RING, buffer_size=64 << 10)
    assert kernel(ring)["buffer"] == (Level.OK, "Records will come through a ring buffer of 64 KiB.")
    assert kernel(ring, ring_buffer=NO)["buffer"] == (
        Level.FAILURE,
        f"kernel.buffer is set to ring, but there is none. {NO.sentence}",
    )
    level, text = kernel(Kernel(buffer=BufferKind.PERF))["buffer"]
    assert (level, text) == (
        Level.OK,
        "Records will come through perf buffers of 4 MiB together, as configured.",
    )


def test_pid_namespace() -> None:
    own = PidNamespace(False, 4, 4026532000)
    assert kernel(pid_namespace=own)["pid_namespace"][0] is Level.NOTE
    assert kernel(pid_namespace=own, pid_translation=NO)["pid_namespace"] == (Level.FAILURE, NO.sentence)
    assert kernel(pid_translation=NO)["pid_namespace"][0] is Level.OK


def test_lockdown_and_machine() -> None:
    found = kernel(lockdown="integrity")
    assert found["lockdown"] == (Level.NOTE, "The kernel is locked down (integrity).")
    found = kernel(machine="riscv64")
    assert found["machine"][0] is Level.FAILURE


def test_capability_is_a_limit_unless_something_stands_in_for_it() -> None:
    def missing(name: str, **changes: object) -> tuple[Level, str]:
        lacking = (MissingCapability(name, "no such thing"),)
        return kernel(DEFAULTS, lockdown="", missing=lacking, **changes)[name]

    none = {"uprobe_multi": NO, "uprobe_perf": NO, "uprobe_tracefs": NO}
    assert missing("CAP_SYS_PTRACE") == (Level.LIMIT, "CAP_SYS_PTRACE is missing: no such thing.")
    assert missing("CAP_DAC_OVERRIDE")[0] is Level.NOTE
    assert missing("CAP_DAC_OVERRIDE", **none)[0] is Level.LIMIT
    assert missing("CAP_SYS_RESOURCE")[0] is Level.NOTE
    assert missing("CAP_SYS_RESOURCE", memory_lock=NO)[0] is Level.LIMIT


def test_configuration() -> None:
    [finding] = of_configuration(load())
    assert (finding.level, finding.sentence) == (
        Level.OK,
        "The configuration is valid, all of it defaults.",
    )
    config = load(
        environ={"OTEL_SDK_DISABLED": "true"}, flags={"libraries.disabled": "net/htp,net/http server"}
    )
    valid, disabled, unknown = of_configuration(config)
    assert valid.sentence == "The configuration is valid, set by OTEL_SDK_DISABLED, command line."
    assert disabled.sentence == "discovery.enabled is false (OTEL_SDK_DISABLED): nothing will be traced."
    assert unknown.sentence.startswith("libraries.disabled names 'net/htp', which is none of net/http server")
    assert worst([valid, disabled, unknown]) is Level.WARNING
    odd = list(of_configuration(load(flags={"sampler.arg": "0.5"})))
    assert odd[1].sentence.startswith("sampler.arg has no effect with the sampler")


def test_refused_programs() -> None:
    def levels(*refused: tuple[str, str, str]) -> list[tuple[Level, str]]:
        return [(one.level, one.sentence) for one in of_programs(["one", "two"], refused)]

    assert levels() == [
        (Level.OK, "The kernel takes all programs for one."),
        (Level.OK, "The kernel takes all programs for two."),
    ]
    part = levels(("two", "two_end", "the verifier refused it: R1 invalid mem access"))
    assert part[1] == (
        Level.LIMIT,
        "The kernel refuses the program two_end of two: the verifier refused it: R1 invalid mem access.",
    )
    whole = levels(("one", "", "no memory"), ("two", "", "no memory"))
    assert [level for level, _ in whole] == [Level.LIMIT, Level.LIMIT, Level.FAILURE]
