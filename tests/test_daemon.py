"""The whole agent, run by its command, beside real servers and before a real collector."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from agent.kernel.attach import Backend
from agent.kernel.features import Features
from tests.spans.collector import serving as collecting
from tests.support.comparison import compare
from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.golang import NEWEST, VERSIONS, build
from tests.support.http import Server, client_command, expects_span, send, serving
from tests.support.memory import in_file, in_memory, places

pytestmark = pytest.mark.kernel

BREAKPOINT = {"x86_64": b"\xcc", "aarch64": b"\xd4\x20\x00\xa0"[::-1]}[os.uname().machine]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A server in a file of its own, which no agent has seen before."""
    file = tmp_path / "server"
    shutil.copy(build("http_server"), file)
    return file


def get(server: Server, path: str) -> None:
    """Send one request; raises URLError where the server is gone."""
    urllib.request.urlopen(f"http://127.0.0.1:{server.port('http1')}{path}", timeout=20).read()


def paths(daemon: Daemon, pid: int) -> list[str]:
    """What was asked of a process, by its spans."""
    return [attributes(span)["url.path"] for span in daemon.spans_of(pid)]


def until_paths(daemon: Daemon, pid: int, wanted: list[str]) -> None:
    eventually(lambda: len(paths(daemon, pid)) >= len(wanted), f"the spans of {wanted}")
    assert sorted(paths(daemon, pid)) == sorted(wanted)


def test_processes_that_come_and_go(program: Path) -> None:
    with serving(program) as early, running("discovery.scan_interval=100ms") as daemon:
        eventually(lambda: daemon.traces(str(program)), "the process from before is traced")
        get(early, "/static/early")
        # The file is known now, so all these are traced from their first instruction.
        pids = {early.pid: ["/static/early"]}
        for number in range(12):
            with serving(program) as another:
                pids[another.pid] = [f"/static/{number}/{name}" for name in ("first", "second", "third")]
                for path in pids[another.pid]:
                    get(another, path)
        with serving(program) as killed:
            get(killed, "/static/killed")
            pids[killed.pid] = ["/static/killed"]
            os.kill(killed.pid, signal.SIGKILL)
        for pid, wanted in pids.items():
            until_paths(daemon, pid, wanted)
        last = daemon.stop()
    assert last["dropped"] == {}


def test_a_process_that_lives_for_200_ms(program: Path) -> None:
    with running() as daemon:
        with serving(program) as first:
            get(first, "/static/first")
        eventually(lambda: daemon.traces(str(program)), "the file is traced")
        command = [str(program), "-for", "200ms"]
        answered: list[str] = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            port = json.loads(process.stdout.readline())["http"]
            try:
                while True:
                    path = f"/static/{len(answered)}"
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20).read()
                    answered.append(path)
            except (OSError, urllib.error.URLError):
                pass
        assert answered
        eventually(lambda: len(paths(daemon, process.pid)) >= len(answered), f"{len(answered)} spans")
        seen = paths(daemon, process.pid)
        # At most the last request had its span although the process did not live to answer it.
        assert set(seen) - {path} == set(answered) - {path}
        assert len(seen) == len(set(seen))


@pytest.mark.parametrize("ring", [True, False], ids=["ring", "perf buffer"])
def test_every_way_to_attach_and_both_buffers(
    backend: Backend, ring: bool, program: Path, tmp_path: Path, found: Features
) -> None:
    buffer = "ring" if ring and found.ring_buffer else "perf"
    log = tmp_path / "log"
    settings = (f"kernel.attach={backend.value}", f"kernel.buffer={buffer}")
    with running(*settings) as daemon, serving(program, log=log) as server:
        eventually(lambda: daemon.traces(str(program)), "the server is traced")
        offsets = places(program)
        assert {code[: len(BREAKPOINT)] for code in in_memory(server.pid, offsets)} == {BREAKPOINT}
        lines = send(server, "http1", "-faults", "0.05", requests=300)
        wanted = [line for line in lines if expects_span(line)]
        until_spans(daemon, server.pid, len(wanted))
        assert daemon.stop()["backend"] == backend.value
        compare(daemon.spans_of(server.pid), wanted, log, NEWEST)
        assert in_memory(server.pid, offsets) == in_file(program, offsets)


def test_killing_the_agent_leaves_nothing_behind(backend: Backend, program: Path, tracing: Any) -> None:
    definitions = tracing.path / "uprobe_events"
    with serving(program) as server:
        offsets = places(program)
        untouched = in_memory(server.pid, offsets)
        assert untouched == in_file(program, offsets)
        before = outcomes(send(server, "http1", seed=7))
        with running(f"kernel.attach={backend.value}") as daemon:
            eventually(lambda: daemon.traces(str(program)), "the server is traced")
            assert in_memory(server.pid, offsets) != untouched
            command = client_command(server, "http1", requests=3000)
            client = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            eventually(lambda: len(daemon.spans_of(server.pid)) > 300, "spans")
            left = f"gospan_{daemon.process.pid}_"
            daemon.process.kill()
            daemon.process.wait()
            assert client.wait(60) == 0
        eventually(lambda: in_memory(server.pid, offsets) == untouched, "the original instructions are back")
        assert outcomes(send(server, "http1", seed=7)) == before
        if backend is Backend.TRACEFS:
            assert left in definitions.read_text()
            with running() as daemon:
                eventually(lambda: left not in definitions.read_text(), "the definitions are removed")
                assert daemon.said("removed probe definitions that a former agent left")
                daemon.stop()
    assert left not in definitions.read_text()


def outcomes(lines: list[dict[str, Any]]) -> list[tuple[int, int, str, str]]:
    """What became of each request: status, and the checksum of all bytes of the response."""
    return sorted((line["number"], line["status"], line["checksum"], line["error"]) for line in lines)


@pytest.mark.parametrize("go", [VERSIONS[0], NEWEST])
def test_responses_are_the_same_bytes_with_and_without_the_agent(go: str, tmp_path: Path) -> None:
    program = tmp_path / "server"
    shutil.copy(build("http_server", go=go), program)
    modes = ("http1", "http1.0", "close", "h2", "h2c")
    with serving(program) as server:
        # The port is a part of some responses, so it has to be the same server.
        without = [outcomes(send(server, mode, seed=3, requests=400)) for mode in modes]
        with running() as daemon:
            eventually(lambda: daemon.traces(str(program)), "the server is traced")
            assert in_memory(server.pid, places(program)) != in_file(program, places(program))
            traced = [outcomes(send(server, mode, seed=3, requests=400)) for mode in modes]
            eventually(lambda: len(daemon.spans_of(server.pid)) > 1000, "spans")
            daemon.stop()
    assert traced == without


def test_what_is_answered_before_sigterm_has_its_span(program: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running("export.schedule_delay=5s") as daemon, serving(program, log=log) as server:
        eventually(lambda: daemon.traces(str(program)), "the server is traced")
        command = client_command(server, "http1", "-duration", "3s", "-connections", "8", requests=0)
        output = tmp_path / "lines"
        with output.open("w") as file, subprocess.Popen(command, stdout=file):
            eventually(lambda: log.stat().st_size > 100_000, "the client is at it")
            told = time.time_ns()
            daemon.stop()
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    wanted = [line for line in lines if expects_span(line) and line["end_ns"] < told]
    assert len(wanted) > 100
    compare(daemon.spans_of(server.pid), wanted, log, NEWEST, others=True)


def test_overwriting_a_file_that_nothing_runs(tmp_path: Path) -> None:
    """The next program starts as soon as it is written, without a breakpoint of the one before."""
    program = tmp_path / "server"
    builds = [build("http_server", go=go) for go in (VERSIONS[0], NEWEST)]
    shutil.copyfile(builds[0], program)
    program.chmod(0o755)
    with running() as daemon:
        for number in range(1, 9):
            with serving(program) as server:
                until_attached(daemon, program, number)
                get(server, f"/static/{number}")
                until_paths(daemon, server.pid, [f"/static/{number}"])
            shutil.copyfile(builds[number % 2], program)
        assert len([one for one in of(daemon, program) if "no longer tracing" in one["message"]]) == 8
        daemon.stop()


def until_attached(daemon: Daemon, program: Path, times: int) -> None:
    """Wait until it was said so often that the executable is traced."""

    def attached() -> bool:
        return len([one for one in of(daemon, program) if "probes" in one]) == times

    eventually(attached, f"{program} is traced")


def until_spans(daemon: Daemon, pid: int, count: int) -> None:
    eventually(lambda: len(daemon.spans_of(pid)) >= count, f"{count} spans")


def of(daemon: Daemon, program: Path) -> list[dict[str, Any]]:
    """What was said of an executable."""
    return [message for message in daemon.messages if message.get("exe") == str(program)]


def test_replacing_and_removing_a_file_that_runs(program: Path, tmp_path: Path) -> None:
    successor = tmp_path / "successor"
    shutil.copy(build("http_server", go=VERSIONS[0]), successor)
    with running() as daemon:
        with serving(program) as old:
            eventually(lambda: daemon.traces(str(program)), "the first is traced")
            successor.rename(program)
            get(old, "/static/old")
            with serving(program) as new:
                until_attached(daemon, program, 2)
                get(old, "/static/old/again")
                get(new, "/static/new")
                program.unlink()
                get(new, "/static/new/again")
                until_paths(daemon, old.pid, ["/static/old", "/static/old/again"])
                until_paths(daemon, new.pid, ["/static/new", "/static/new/again"])
        eventually(
            lambda: (
                len([one for one in of(daemon, program) if "its file was removed" in one["message"]]) == 2
            ),
            "both come off",
        )
        daemon.stop()


def test_a_collector_that_comes_later(program: Path) -> None:
    with running(collecting=False) as daemon, serving(program) as server:
        eventually(lambda: daemon.traces(str(program)), "the server is traced")
        wanted = [f"/static/{number}" for number in range(20)]
        for path in wanted[:10]:
            get(server, path)
        eventually(
            lambda: any(
                message.get("message_id") for message in daemon.messages if message["level"] == "warning"
            ),
            "it is told that the collector is away",
        )
        with collecting(daemon.collector, address=f"127.0.0.1:{daemon.collector.port}"):
            for path in wanted[10:]:
                get(server, path)
            until_paths(daemon, server.pid, wanted)
            assert daemon.stop()["dropped"] == {}


@pytest.mark.parametrize(
    ("sampler", "parentbased"),
    [
        ("always_off", False),
        ("traceidratio", False),
        ("parentbased_traceidratio", True),
        ("parentbased_always_off", True),
    ],
)
def test_samplers(sampler: str, parentbased: bool, program: Path) -> None:
    settings = (f"sampler.name={sampler}", "sampler.arg=0.25")
    with running(*settings) as daemon, serving(program) as server:
        eventually(lambda: daemon.traces(str(program)), "the server is traced")
        lines = send(server, "http1", requests=800)
        roots = [line for line in lines if not line["parent_trace_id"]]
        children = [line for line in lines if line["parent_trace_id"]]
        ratio = "ratio" in sampler
        if parentbased:
            wanted = [line for line in children if line["parent_sampled"]]
        else:
            wanted = [line for line in children if ratio and is_sampled(line["parent_trace_id"])]
        daemon.stop()
    spans = daemon.spans_of(server.pid)
    has = sorted((span.trace_id.hex(), span.parent_span_id.hex()) for span in spans if span.parent_span_id)
    assert has == sorted((line["parent_trace_id"], line["parent_span_id"]) for line in wanted)
    made = [span for span in spans if not span.parent_span_id]
    assert all(is_sampled(span.trace_id.hex()) for span in made)
    # Of 400 about 100: further off than this is no bad luck.
    assert 0.1 * len(roots) < len(made) < 0.4 * len(roots) if ratio else not made


def is_sampled(trace_id: str) -> bool:
    """TraceIdRatioBased{0.25}, as the SDK decides: by the low 64 bits."""
    return int(trace_id[16:], 16) < 1 << 62


def test_a_disabled_library(program: Path) -> None:
    with running("libraries.disabled=net/http server", "log.level=debug") as daemon, serving(program):
        eventually(lambda: bool(of(daemon, program)), "the server was looked at")
        (message,) = of(daemon, program)
        assert "it is turned off by libraries.disabled" in message["message"]
        assert message["level"] == "debug"
        daemon.stop()


def test_too_many_executables_are_told(program: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copy(program, other)
    with serving(program), serving(other), running("kernel.max_executables=1") as daemon:
        messages = [one for one in of(daemon, program) + of(daemon, other) if "probes" not in one]
        assert messages
        for message in messages:
            assert message["level"] == "error"
            assert "as many executables are traced as there is room for" in message["message"]
            assert "kernel.max_executables" in message["message"]
        assert daemon.stop()["executables"] == 1


def test_the_resource(program: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    named = plain | {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,team=blue"}
    listed = plain | {"OTEL_RESOURCE_ATTRIBUTES": "service.name=basket,service.version=7"}
    names = {}
    with running() as daemon:
        for name, environ in (("shop", named), ("basket", listed), ("", plain)):
            with serving(program, environ=environ) as server:
                eventually(lambda: daemon.traces(str(program)), "the server is traced")
                get(server, "/static/x")
                until_spans(daemon, server.pid, 1)
                names[server.pid] = name
        daemon.stop()
    resources = {resource["process.pid"]: resource for resource, _ in daemon.spans()}
    for pid, name in names.items():
        resource = resources[pid]
        if name:
            assert resource["service.name"] == name
        else:
            # This test's own unit, where it runs in one; else the executable.
            assert resource["service.name"]
        assert resource["process.executable.name"] == "server"
        assert resource["process.executable.path"] == str(program)
        assert resource["process.runtime.name"] == "go"
        assert resource["process.runtime.version"] == f"go{NEWEST}"
        assert resource["host.name"] == socket.gethostname()
        assert resource["os.type"] == "linux"
        assert resource["telemetry.distro.name"] == "gospan"
        assert resource["telemetry.sdk.language"] == "go"
        assert resource["service.instance.id"]
    by_name = {name: resources[pid] for pid, name in names.items()}
    assert by_name["shop"]["team"] == "blue"
    assert by_name["basket"]["service.version"] == "7"
    assert len({resource["service.instance.id"] for resource in resources.values()}) == len(resources)


def test_every_link_mode(tmp_path: Path) -> None:
    modes = (
        "pie-stripped",
        "external-strip",
        "pie-external-strip",
        "pie-relr-strip",
        "no-sections",
        "pie-gold-strip",
    )
    programs = {mode: build("http_server", mode=mode, cgo=True) for mode in modes}
    with running() as daemon:
        for mode, program in programs.items():
            log = tmp_path / mode
            with serving(program, log=log) as server:
                until_attached(daemon, program, 1)
                wanted = [line for line in send(server, "http1", requests=100) if expects_span(line)]
                wanted += [line for line in send(server, "h2", requests=100) if expects_span(line)]
                until_spans(daemon, server.pid, len(wanted))
            compare(daemon.spans_of(server.pid), wanted, log, NEWEST)
        daemon.stop()
