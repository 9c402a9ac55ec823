from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.kernel.attach import Backend
from agent.kernel.errors import KernelError
from agent.kernel.features import Feature, Features, features, parse_release, pid_namespace
from agent.kernel.privileges import lockdown, missing_capabilities
from tests.kernel import build


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("5.10.0-30-cloud-amd64", (5, 10, 0)),
        ("6.18.44-fc-v669", (6, 18, 44)),
        ("6.6", (6, 6, 0)),
        ("5.4.0.1-special", (5, 4, 0)),
        ("7.0-rc1+", (7, 0, 0)),
    ],
)
def test_release(text: str, release: tuple[int, int, int]) -> None:
    assert parse_release(text) == release


def capabilities(*numbers: int) -> str:
    return f"Name:\tx\nCapPrm:\t0\nCapEff:\t{sum(1 << number for number in numbers):016x}\nCapBnd:\t0\n"


def test_missing_capabilities_are_those_whose_lack_costs_something() -> None:
    def names(status: str, release: tuple[int, int, int]) -> list[str]:
        return [one.name for one in missing_capabilities(status, release)]

    everything = capabilities(*range(41))
    assert names(everything, (6, 1, 0)) == []
    assert names(capabilities(1, 2, 19, 21), (6, 1, 0)) == []  # CAP_SYS_ADMIN includes CAP_BPF
    assert names(capabilities(1, 2, 19, 21), (5, 10, 0)) == ["CAP_SYS_RESOURCE"]
    assert names(capabilities(1, 2, 19, 39), (6, 1, 0)) == ["CAP_SYS_ADMIN", "CAP_PERFMON"]
    assert names(capabilities(2, 19), (5, 4, 0)) == ["CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"]
    assert "CAP_SYS_PTRACE" in names("nothing of the kind", (6, 1, 0))


def test_lockdown(tmp_path: Path) -> None:
    path = tmp_path / "lockdown"
    assert lockdown(path) == ""
    path.write_text("none [integrity] confidentiality\n")
    assert lockdown(path) == "integrity"
    path.write_text("[none] integrity confidentiality\n")
    assert lockdown(path) == ""


def test_pid_namespace_of_ourselves_and_of_another() -> None:
    own = pid_namespace()
    status = Path("/proc/self/ns/pid").stat()
    assert own.ino == status.st_ino
    assert os.minor(status.st_dev) == own.dev & 0xFFFFF
    assert own.initial == (status.st_ino == 0xEFFFFFFC)


def _without(found: Features, **features: Feature) -> Features:
    return dataclasses.replace(found, **features)  # type: ignore[arg-type]


@pytest.mark.kernel
def test_choice_of_the_back_end(found: Features) -> None:
    no, yes = Feature(False, "Not here."), Feature(True, "Here.")
    all_three = _without(found, uprobe_multi=yes, uprobe_perf=yes, uprobe_tracefs=yes)
    assert all_three.backends == tuple(Backend)
    assert all_three.backend() is Backend.UPROBE_MULTI
    assert all_three.backend(Backend.TRACEFS) is Backend.TRACEFS
    assert _without(all_three, uprobe_multi=no).backend() is Backend.PERF
    assert _without(all_three, uprobe_multi=no, uprobe_perf=no).backend() is Backend.TRACEFS
    with pytest.raises(KernelError, match=r"no program can be attached. Not here.$"):
        _without(all_three, uprobe_perf=no).backend(Backend.PERF)
    with pytest.raises(KernelError, match=r"attached. Not here. Not here. Not here.$"):
        _without(found, uprobe_multi=no, uprobe_perf=no, uprobe_tracefs=no).backend()
    with pytest.raises(KernelError, match=r"^No loading"):
        _without(found, loading=Feature(False, "No loading.")).backend()


@pytest.mark.kernel
def test_features_of_this_kernel(found: Features) -> None:
    assert features() is found
    named = found.named()
    assert len(named) == 14
    for feature in named.values():
        assert feature.sentence[0].isupper()
        assert feature.sentence.endswith(".")
    assert found.loading
    assert found.uprobe_perf
    assert found.uprobe_tracefs
    assert found.raw_tracepoints
    assert bool(found.ring_buffer) == (found.release >= (5, 8, 0))
    assert bool(found.pid_translation) == (found.release >= (5, 7, 0))
    assert bool(found.cookies) == (found.release >= (5, 15, 0))
    assert bool(found.loops) == (found.release >= (5, 17, 0))
    assert bool(found.uprobe_multi) == (found.release >= (6, 6, 0))
    if not found.uprobe_multi:
        assert found.uprobe_multi.sentence.endswith("which kernels have since Linux 6.6.")


_SCRIPT = """
from agent.kernel.features import features
found = features()
for name, feature in found.named().items():
    print(name, feature.works, feature.sentence)
print("missing", *(one.name for one in found.missing))
"""


def _with_capabilities(*options: str) -> dict[str, str]:
    command = ["setpriv", *options, sys.executable, "-c", _SCRIPT]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=build.ROOT)
    assert result.stderr == ""
    return dict(line.split(" ", 1) for line in result.stdout.splitlines())


@pytest.mark.kernel
def test_without_any_capability_everything_has_its_reason() -> None:
    found = _with_capabilities("--bounding-set=-all", "--inh-caps=-all")
    assert found["loading"].startswith("False BPF programs can't be loaded, so nothing can be traced")
    assert "CAP_BPF and CAP_PERFMON are needed" in found["loading"]
    for name in ("uprobe_perf", "uprobe_tracefs", "cookies", "write_user", "loops", "jit"):
        assert found[name] == "False Not known, since BPF programs can't be loaded."
    assert "CAP_SYS_ADMIN" in found["missing"].split()


@pytest.mark.kernel
def test_with_the_capabilities_of_the_unit_but_no_administrator(found: Features) -> None:
    """CAP_BPF and CAP_PERFMON are enough for uprobe_multi, and not for writing into programs."""
    restricted = _with_capabilities("--bounding-set=-sys_admin")
    assert restricted["loading"].startswith("True" if found.release >= (5, 8, 0) else "False")
    assert restricted["uprobe_multi"].startswith(str(found.uprobe_multi.works))
    assert restricted["write_user"].startswith("False Trace context can't be written into outgoing requests")
    assert "CAP_SYS_ADMIN" in restricted["missing"].split()
