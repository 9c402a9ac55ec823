"""Following processes and files, with real programs, in an order that the test decides."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

import agent.traced
from agent import left_out
from agent.config import Config, Discovery, Kernel, Rule, Sampler, Selector
from agent.discovery import processes
from agent.discovery.processes import Process
from agent.roster import Roster
from tests.support.golang import build
from tests.support.http import serving
from tests.support.processes import copy_of, request
from tests.support.tracing import Tracing, tracing

pytestmark = pytest.mark.kernel


def verdict(rig: Tracing, path: Path) -> int | None:
    """What the kernel does with new processes of a file; None: it asks."""
    key = Roster(rig.programs).key_of(processes.identity_of(path.stat()))
    entry = rig.programs.map("files").lookup(key)
    return None if entry is None else int(rig.programs.format("file_entry").unpack(entry)["verdict"])


def test_a_process_that_a_scan_finds(rig: Tracing, program: Path) -> None:
    with serving(program) as server:
        rig.tracer.scan()
        assert rig.traced(program) == [server.pid]
        rig.until_spans(server.pid, request(server))


def test_a_process_that_starts_later_and_a_second_one_of_its_file(rig: Tracing, program: Path) -> None:
    with serving(program) as first:
        rig.until_started(first.pid)
        rig.until_spans(first.pid, request(first))
        with serving(program) as second:
            # Its requests come before the agent has heard of it.
            count = request(second)
            rig.until_spans(second.pid, count)
            assert sorted(rig.traced(program)) == sorted((first.pid, second.pid))
            assert rig.executables(program) == 1
    rig.drain()
    assert rig.traced(program) == []
    assert rig.executables(program) == 1
    assert rig.pipeline.counts.orphaned == 0


def test_a_scan_that_is_faster_than_the_event(
    rig: Tracing, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process keeps the number that the kernel gave it, and so its open spans and its resource."""
    monkeypatch.setattr(agent.traced, "_KEPT_AFTER_END", 0)
    with serving(program) as first:
        rig.until_started(first.pid)
    with serving(program) as second:
        count = request(second)
        rig.tracer.scan()
        count += request(second)
        rig.until_started(second.pid)
        rig.tracer.tidy()
        count += request(second)
        rig.until_spans(second.pid, count)
        assert rig.traced(program) == [second.pid]
    assert rig.pipeline.counts.orphaned == 0


def test_an_event_of_a_new_file_that_a_scan_has_met(rig: Tracing, program: Path) -> None:
    with serving(program) as server:
        rig.tracer.scan()
        (number,) = (one.number for one in rig.tracer.traced if one.pid == server.pid)
        rig.until_started(server.pid)
        assert [one.number for one in rig.tracer.traced if one.pid == server.pid] == [number]
        assert verdict(rig, program) == rig.programs.constant("FILE_TRACED")


def test_a_program_that_replaces_itself(rig: Tracing, program: Path, tmp_path: Path) -> None:
    """An event is handled when its process runs another program already: one file's verdict is not the other's."""
    shell = copy_of("/bin/sh", tmp_path / "sh")
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!{shell}\nexec {program} "$@"\n')
    wrapper.chmod(0o755)
    with serving(wrapper) as server:
        rig.until_started(server.pid)
        assert rig.started.count(server.pid) == 2
        rig.until_spans(server.pid, request(server))
        assert verdict(rig, shell) is None
        assert verdict(rig, program) == rig.programs.constant("FILE_TRACED")


def test_a_file_that_could_not_be_looked_at_is_not_ignored(
    rig: Tracing, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = processes.identity_of(program.stat())
    with subprocess.Popen(["/bin/true"]) as ended:
        ended.wait()
    monkeypatch.setattr(processes, "look", lambda pid: Process(pid, str(program), file))
    rig.tracer._meet(ended.pid)
    monkeypatch.undo()
    assert verdict(rig, program) is None
    with serving(program) as server:
        rig.until_started(server.pid)
        rig.until_spans(server.pid, request(server))


def test_a_verdict_that_the_kernel_forgot_is_given_again(rig: Tracing, program: Path) -> None:
    with serving(program) as server:
        rig.until_started(server.pid)
    key = Roster(rig.programs).key_of(processes.identity_of(program.stat()))
    assert rig.programs.map("files").delete(key)
    with serving(program) as server:
        rig.until_started(server.pid)
    assert verdict(rig, program) == rig.programs.constant("FILE_TRACED")


def test_a_program_that_is_not_go_costs_nothing_after_its_first_start(rig: Tracing, tmp_path: Path) -> None:
    file = copy_of("/bin/true", tmp_path / "true")
    started = []
    for _ in range(20):
        with subprocess.Popen([file]) as process:
            started.append(process.pid)
        rig.drain()
    assert [pid for pid in started if pid in rig.started] == started[:1]
    assert verdict(rig, file) == rig.programs.constant("FILE_IGNORED")
    assert rig.traced(file) == []
    assert rig.executables(file) == 0
    assert rig.log.of(file) == []


def test_go_programs_without_a_library_are_told_at_debug_level_only(rig: Tracing, tmp_path: Path) -> None:
    source = tmp_path / "plain"
    source.mkdir()
    (source / "go.mod").write_text("module example.com/plain\n\ngo 1.21\n")
    (source / "main.go").write_text(
        'package main\n\nimport "os"\n\nfunc main() { os.Stdin.Read(make([]byte, 1)) }\n'
    )
    program = build(source)
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
        rig.tracer.scan()
        process.communicate(b"x")
    assert [one.reason for one in rig.tracer.ignored if one.path == str(program)] == [
        "it contains none of the libraries that can be traced"
    ]
    assert [level for level, _, fields in rig.log.lines if fields.get("exe") == str(program)] == ["debug"]


def test_a_program_that_only_excluded_processes_run_gets_no_probes(tmp_path: Path, program: Path) -> None:
    other = copy_of(program, tmp_path / "other")
    with tracing(Config(discovery=Discovery(exclude=(Selector(exe=str(program)),)))) as rig:
        with serving(program) as excluded, serving(other) as included:
            rig.until_started(included.pid)
            rig.tracer.scan()
            assert rig.traced(other) == [included.pid]
            assert rig.executables(program) == 0
            assert rig.log.of(program) == []
            count = request(included)
            request(excluded)
            rig.until_spans(included.pid, count)
            assert rig.spans_of(excluded.pid) == []
        # By its path alone it is decided, so that the kernel need not ask.
        assert verdict(rig, other) == rig.programs.constant("FILE_TRACED")
        # That it isn't Go is known of a file whoever runs it.
        file = copy_of("/bin/true", tmp_path / "true")
        subprocess.run([file], check=True)
        rig.drain()
        assert verdict(rig, file) == rig.programs.constant("FILE_IGNORED")


def test_processes_of_one_file_are_chosen_by_command_line(program: Path) -> None:
    config = Config(discovery=Discovery(include=(Selector(cmdline="*-for 59s*"),)))
    with tracing(config) as rig, serving(program) as unwanted:
        rig.until_started(unwanted.pid)
        assert rig.executables(program) == 0
        command = [str(program), "-for", "59s"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wanted:
            assert wanted.stdout is not None
            wanted.stdout.readline()
            rig.until_started(wanted.pid)
            assert rig.traced(program) == [wanted.pid]
            assert verdict(rig, program) == rig.programs.constant("FILE_ASK")
            request(unwanted)
            rig.drain()
            assert rig.spans_of(unwanted.pid) == []
            wanted.terminate()


def test_a_second_name_of_a_file_that_is_not_to_be_traced(tmp_path: Path, program: Path) -> None:
    """The kernel traces it from the start, as it knows the file by its other name; the agent puts that right."""
    other = tmp_path / "other"
    os.link(program, other)
    config = Config(discovery=Discovery(exclude=(Selector(exe=str(other)),)))
    with tracing(config) as rig, serving(program) as included:
        rig.until_started(included.pid)
        with serving(other) as excluded:
            rig.until_started(excluded.pid)
            assert rig.traced(program) == [included.pid]
            request(excluded)
            rig.until_spans(included.pid, request(included))
            assert rig.spans_of(excluded.pid) == []


def test_rules_set_sampler_service_and_libraries_of_single_processes(program: Path, tmp_path: Path) -> None:
    other = copy_of(program, tmp_path / "other")
    name = "net/http server"
    rules = (
        Rule(cmdline="*-for 58s*", libraries_disabled=(name,)),
        Rule(cmdline="*-for 59s*", sampler=Sampler.ALWAYS_OFF),
        Rule(exe=str(other), service_name="shop", attributes=(("team", "blue"),)),
    )
    with tracing(Config(discovery=Discovery(rules=rules))) as rig, ExitStack() as stack:
        plain = stack.enter_context(serving(program))
        without = stack.enter_context(serving(program, arguments=("-for", "58s")))
        unsampled = stack.enter_context(serving(program, arguments=("-for", "59s")))
        named = stack.enter_context(serving(other))
        for server in (plain, without, unsampled, named):
            rig.until_started(server.pid)
        assert sorted(rig.traced(program)) == sorted((plain.pid, without.pid, unsampled.pid))
        for server in (without, unsampled):
            request(server)
        rig.until_spans(plain.pid, request(plain))
        rig.until_spans(named.pid, request(named))
        assert rig.spans_of(without.pid) == rig.spans_of(unsampled.pid) == []
        services = {one.pid: one.service for one in rig.tracer.traced}
        assert services[named.pid] == "shop"
        assert services[plain.pid] != "shop"
        off = {one.pid: one.choice.libraries_off for one in rig.tracer.traced}
        assert name not in off[plain.pid]
        assert off[without.pid] == {
            **off[plain.pid],
            name: "it is turned off by libraries_disabled of a rule in discovery.rules",
        }


def test_the_sampler_in_a_process_s_own_environment(program: Path) -> None:
    """It goes before the configuration's, but not before a rule's."""
    rules = (Rule(cmdline="*-for 59s*", sampler=Sampler.ALWAYS_ON),)
    off, wrong = ({**os.environ, "OTEL_TRACES_SAMPLER": value} for value in ("always_off", "sometimes"))
    with tracing(Config(discovery=Discovery(rules=rules))) as rig, ExitStack() as stack:
        unsampled = stack.enter_context(serving(program, environ=off))
        ruled = stack.enter_context(serving(program, environ=off, arguments=("-for", "59s")))
        plain = stack.enter_context(serving(program, environ=wrong))
        for server in (unsampled, ruled, plain):
            rig.until_started(server.pid)
        request(unsampled)
        rig.until_spans(ruled.pid, request(ruled))
        rig.until_spans(plain.pid, request(plain))
        assert rig.spans_of(unsampled.pid) == []
        told = [event for kind, event, _ in rig.log.lines if kind == "warning" and "OTEL_TRACES" in event]
        assert told == ["its OTEL_TRACES_SAMPLER is ignored: there is no sampler 'sometimes'"]


def test_a_port_that_is_listened_on_later(program: Path) -> None:
    """What a process listens on is looked at in every scan."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    config = Config(discovery=Discovery(include=(Selector(port=port),)))
    listen = ("-http", f"127.0.0.1:{port}")
    with tracing(config) as rig, serving(program) as other, serving(program, arguments=listen) as server:
        rig.until_started(server.pid)
        rig.tracer.scan()
        assert rig.traced(program) == [server.pid]
        rig.until_spans(server.pid, request(server))
        request(other)
        rig.drain()
        assert rig.spans_of(other.pid) == []


def test_without_discovery_nothing_is_attached(program: Path) -> None:
    with tracing(Config(discovery=Discovery(enabled=False))) as rig, serving(program) as server:
        rig.until_started(server.pid)
        assert rig.tracer.executables == []


def test_more_executables_than_there_is_room_for(tmp_path: Path, program: Path) -> None:
    other = copy_of(program, tmp_path / "other")
    only_these = Discovery(include=(Selector(exe=str(tmp_path / "*")),))
    config = Config(kernel=Kernel(max_executables=1), discovery=only_these)
    with tracing(config) as rig, serving(program) as first:
        rig.tracer.scan()
        with serving(other) as second:
            rig.tracer.scan()
            rig.tracer.scan()
            assert rig.traced(other) == []
            (message,) = rig.log.of(other)
            assert message.startswith(f"not tracing {other}: as many executables are traced as there is room")
            assert "kernel.max_executables" in message
            rig.until_spans(first.pid, request(first))
            # The first one's file goes with its last process, and makes room.
            program.unlink()
            rig.drain()
            rig.tracer.files_changed()
            assert rig.executables(program) == 1
            os.kill(first.pid, 15)
            rig.until(lambda: not rig.executables(program), "the probes come off")
            rig.tracer.scan()
            assert rig.traced(other) == [second.pid]
            rig.until_spans(second.pid, request(second))


def test_what_is_known_of_files_is_bounded(
    rig: Tracing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_out, "_REMEMBERED", 4)
    files = []
    for number in range(9):
        files.append(processes.identity_of(copy_of("/bin/true", tmp_path / f"true{number}").stat()))
        subprocess.run([tmp_path / f"true{number}"], check=True)
        rig.drain()
    ignored = [rig.tracer._left_out.ignores(file) for file in files]
    assert sum(ignored) <= 4
    assert ignored[-1]


def test_a_bug_costs_one_message_and_one_file(
    rig: Tracing, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(agent.tracer, "make_plan", broken)
    with serving(program), serving(program):
        rig.tracer.scan()
    monkeypatch.undo()
    mine = [event for _, event, _ in rig.log.lines if str(program) in event]
    assert mine == [f"a bug in gospan: {program} is not traced"]


def test_nothing_is_attached_after_the_end(rig: Tracing, program: Path) -> None:
    with serving(program) as before:
        rig.until_started(before.pid)
        rig.tracer.close()
        with serving(program) as server:
            rig.until_started(server.pid)
            rig.tracer.scan()
        program.unlink()
    rig.until_untraced(program)
    assert rig.tracer.executables == []
    assert len(rig.log.of(program)) == 1


def test_ended_processes_are_forgotten(rig: Tracing, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.traced, "_KEPT_AFTER_END", 0)
    with serving(program) as server:
        rig.until_started(server.pid)
        rig.until_spans(server.pid, request(server))
        known = len(rig.pipeline._resources)
    rig.until_untraced(program)
    assert len(rig.pipeline._resources) == known
    rig.tracer.tidy()
    assert len(rig.pipeline._resources) < known
    assert rig.tracer._traced._ended == []


def test_names_that_are_no_text(rig: Tracing, tmp_path: Path) -> None:
    program = copy_of(build("http_server"), Path(os.fsdecode(bytes(tmp_path) + b"/s\xff r\nv")))
    with serving(program) as server:
        rig.until_started(server.pid)
        rig.until_spans(server.pid, request(server))
