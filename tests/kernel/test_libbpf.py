from __future__ import annotations

import subprocess
import sys

import pytest

from agent.kernel import libbpf
from agent.kernel.errors import KernelError
from agent.kernel.libbpf import LogLevel
from tests.kernel import build


def test_version() -> None:
    assert libbpf.version().startswith("v1.")


def test_messages_reach_the_callback_formatted() -> None:
    """The text has a %s and a %d of the library's own: its va_list arrived whole."""
    messages: list[tuple[LogLevel, str]] = []
    libbpf.set_log(lambda level, text: messages.append((level, text)))
    try:
        with pytest.raises(KernelError, match=r"cannot open the BPF object /no/such.bpf.o: No such file"):
            libbpf.object_open("/no/such.bpf.o")
    finally:
        libbpf.set_log(None)
    assert messages == [
        (LogLevel.WARN, "libbpf: elf: failed to open /no/such.bpf.o: No such file or directory")
    ]


def test_only_levels_that_are_wanted(probes: str) -> None:
    seen: list[LogLevel] = []
    libbpf.set_log(lambda level, _: seen.append(level), level=LogLevel.DEBUG)
    libbpf.object_close(libbpf.object_open(probes))
    assert LogLevel.DEBUG in seen
    seen.clear()
    libbpf.set_log(lambda level, _: seen.append(level), level=LogLevel.WARN)
    libbpf.object_close(libbpf.object_open(probes))
    libbpf.set_log(None)
    assert seen == []


def test_captured_warnings_go_nowhere_else() -> None:
    elsewhere: list[str] = []
    libbpf.set_log(lambda _, text: elsewhere.append(text))
    with libbpf.captured_warnings() as messages, pytest.raises(KernelError):
        libbpf.object_open("/no/such.bpf.o")
    assert len(messages) == 1
    assert elsewhere == []
    with pytest.raises(KernelError):
        libbpf.object_open("/no/such.bpf.o")
    libbpf.set_log(None)
    assert elsewhere == messages


def test_nothing_is_written_to_stderr_and_nothing_loaded_by_importing() -> None:
    script = (
        "from agent.kernel import features, libbpf, objects\n"
        "from pathlib import Path\n"
        "import sys\n"
        "assert 'elftools' not in sys.modules\n"
        "assert 'libbpf.so' not in Path('/proc/self/maps').read_text()\n"
        "try:\n    libbpf.object_open('/no/such.bpf.o')\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=build.ROOT)
    assert (result.stdout, result.stderr) == ("KernelError\n", "")


def test_programs_and_maps_of_an_object_that_is_not_loaded(probes: str) -> None:
    handle = libbpf.object_open(probes)
    programs = {libbpf.program_name(one): one for one in libbpf.programs(handle)}
    maps = {libbpf.map_name(one): one for one in libbpf.maps(handle)}
    assert list(programs) == ["hit", "count", "refused", "noticed", "ended"]
    assert libbpf.program_section(programs["noticed"]) == "raw_tp/sched_process_exec"
    assert (libbpf.program_type(programs["hit"]), libbpf.program_type(programs["noticed"])) == (2, 17)
    with pytest.raises(KernelError, match="the program hit is not loaded"):
        libbpf.program_fd(programs["hit"])
    with pytest.raises(KernelError, match="the map events is not created"):
        libbpf.map_fd(maps["events"])
    assert libbpf.map_initial_value(maps["events"]) is None
    values = libbpf.map_initial_value(maps["probes.data"])
    assert values is not None
    assert int.from_bytes(values, "little", signed=True) == -5
    libbpf.object_close(handle)
