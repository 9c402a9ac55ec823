from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from agent.kernel import btf
from agent.kernel.errors import KernelError
from agent.kernel.formats import format_of
from agent.kernel.maps import MapType
from agent.kernel.objects import LoadedObject, LoadOptions, encode, load_object, refusal_in
from tests.kernel import build


def load(probes: str, **options: object) -> LoadedObject:
    return load_object(probes, LoadOptions(**options))  # type: ignore[arg-type]


@pytest.mark.kernel
def test_refused_program_is_off_with_the_verifiers_reason(probes: str) -> None:
    with load(probes, constants={"with_cookie": False}) as loaded:  # bpf_get_attach_cookie is of 5.15
        assert set(loaded.programs) == {"hit", "count", "noticed", "ended"}
        (refusal,) = loaded.refused
        assert refusal.program == "refused"
        assert refusal.reason.startswith("the verifier refused it: ")
        assert "null" in refusal.reason.lower()  # the words differ, 7.x explains it at length
        assert "processed " not in refusal.reason
        assert len(refusal.reason.splitlines()) <= 20
        with pytest.raises(KernelError, match="the program refused is off: the verifier refused it"):
            loaded.program("refused")
        with pytest.raises(KernelError, match="has no loaded program missing"):
            loaded.program("missing")


@pytest.mark.kernel
def test_only_the_wanted_programs(probes: str) -> None:
    with load(probes, programs=["count"]) as loaded:
        assert set(loaded.programs) == {"count"}
        assert loaded.refused == ()
        assert loaded.program("count").section == "uprobe/count"
        with pytest.raises(KernelError, match="no loaded program hit"):
            loaded.program("hit")
    with load(probes, programs=["refused"]) as loaded:
        assert loaded.programs == {}
        assert [one.program for one in loaded.refused] == ["refused"]


@pytest.mark.kernel
def test_constants_of_every_type(probes: str) -> None:
    preset = {"method": 7, "places[1].line": 9, "flag": True}
    with load(
        probes,
        constants={"filling": 12, "by_ring": False, "greeting": b"hello", "preset": preset},
    ) as loaded:
        assert loaded.variable("filling") == 12
        assert loaded.variable("by_ring") is False
        assert loaded.variable("with_cookie") is True
        assert loaded.variable("greeting") == b"hello\0\0\0"
        assert loaded.variable("negative") == -5
        assert loaded.variable("hits") == 0
        found = loaded.variable("preset")
        assert isinstance(found, dict)
        assert (found["method"], found["places[1].line"], found["flag"], found["url"]) == (7, 9, True, 0)
        with pytest.raises(KernelError, match="no variable missing"):
            loaded.variable("missing")


def test_constants_that_do_not_fit(probes: str) -> None:
    variables = btf.read(probes).variables
    with pytest.raises(btf.BtfError, match="preset is a struct"):
        encode(variables["preset"], 1)
    with pytest.raises(btf.BtfError, match="filling is no struct"):
        encode(variables["filling"], {"x": 1})
    with pytest.raises(btf.BtfError, match="filling takes 4 bytes"):
        encode(variables["filling"], 1 << 32)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"constants": {"missing": 1}}, "has no constant missing"),
        ({"constants": {"hits": 1}}, "has no constant hits"),
        ({"max_entries": {"missing": 1}}, "has no map missing; it has .*events"),
        ({"kinds": {"missing": MapType.HASH}}, "has no map missing"),
        ({"programs": ["missing"]}, "has no program missing; it has count"),
        ({"max_entries": {"recent": 1 << 31}}, "cannot load .*recent"),
    ],
)
def test_options_that_can_not_be(probes: str, options: dict[str, object], reason: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(KernelError, match=reason):
        load(probes, **options)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.kernel
def test_maps_resized_and_of_another_type(probes: str) -> None:
    with load(
        probes,
        max_entries={"recent": 77, "layouts": 9},
        kinds={"events": MapType.PERF_EVENT_ARRAY, "recent": MapType.HASH},
        constants={"by_ring": False},
    ) as loaded:
        assert loaded.map("recent").max_entries == 77
        assert loaded.map("recent").kind == MapType.HASH
        assert loaded.map("layouts").max_entries == 9
        assert loaded.map("events").kind == MapType.PERF_EVENT_ARRAY
        assert loaded.map("layouts").value_size == format_of(loaded.types.struct("layout")).size
        with pytest.raises(KernelError, match="has no map missing"):
            loaded.map("missing")


@pytest.mark.kernel
def test_maps_shared_between_objects(probes: str) -> None:
    with load(probes, programs=["count"], max_entries={"recent": 10}) as first:
        shared = {name: first.map(name).fd for name in ("recent", "layouts")} | {"unknown": 99}
        with load(probes, programs=["count"], shared=shared) as second:
            first.map("recent").update(b"key " * 2, b"value of")
            assert second.map("recent").lookup(b"key " * 2) == b"value of"
            assert second.map("recent").max_entries == 10
            first.map("hits_by_process").update(b"proc", b"12345678")
            assert second.map("hits_by_process").lookup(b"proc") is None
        assert first.map("recent").lookup(b"key " * 2) == b"value of"


@pytest.mark.kernel
def test_memory_of_maps(probes: str) -> None:
    with load(probes, programs=["count"], max_entries={"events": 1 << 20}) as loaded:
        assert loaded.map("events").memory >= 1 << 20
        assert loaded.memory >= loaded.map("events").memory + loaded.map("recent").memory


@pytest.mark.kernel
def test_files_that_are_no_objects(tmp_path: Path, probes: str) -> None:
    with pytest.raises(btf.BtfError, match=r"the BPF object .*missing is missing; `make setup`"):
        load_object(str(tmp_path / "missing"))
    with pytest.raises(btf.BtfError, match="not a valid eBPF object"):
        load_object(build.target())
    cut = tmp_path / "cut.bpf.o"
    cut.write_bytes(Path(probes).read_bytes()[:2000])
    with pytest.raises(btf.BtfError, match=r"cut.bpf.o is no BPF object that can be read"):
        load_object(str(cut))
    with pytest.raises(KernelError, match=r"cannot open the BPF object .*cut.bpf.o"):
        load_object(str(cut), types=btf.read(probes))


@pytest.mark.kernel
def test_without_privileges_the_missing_ones_are_named(probes: str) -> None:
    script = (
        "import sys\n"
        "from agent.kernel.errors import KernelError\n"
        "from agent.kernel.objects import load_object\n"
        "try:\n    load_object(sys.argv[1])\n"
        "except KernelError as error:\n    print(error.errno, error)\n"
    )
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script, probes]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=build.ROOT)
    assert result.stdout.startswith(f"{errno.EPERM} cannot load ")
    assert "CAP_BPF and CAP_PERFMON are needed" in result.stdout
    assert result.stderr == ""


def test_refusals_that_have_no_verifier_log() -> None:
    relocation = "libbpf: prog 'hit': failed to find kernel BTF type ID of 'x': -3"
    found = refusal_in([relocation], 3)
    assert found is not None
    assert (found.program, found.reason) == ("hit", "failed to find kernel BTF type ID of 'x': -3")
    found = refusal_in(["libbpf: prog 'hit': BPF program load failed: Cannot allocate memory"], errno.ENOMEM)
    assert found is not None
    assert found.reason.startswith("the kernel refused it: Cannot allocate memory (ENOMEM)")
    assert refusal_in(["libbpf: map 'recent': failed to create: Invalid argument(-22)"], 22) is None
