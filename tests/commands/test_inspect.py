from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from agent.commands.target import open_process
from agent.executable import Executable
from agent.kernel import btf
from agent.offsets.resolve import Source
from agent.paths import object_file
from agent.plan import Status
from tests.commands.conftest import POWERLESS, ROOT, Gospan, Result, as_nobody, gospan_process
from tests.support import golang

SCHEMA = ROOT / "docs/inspect.schema.json"


def strict(schema: Any) -> Any:
    """The schema without room for members that it doesn't describe."""
    if isinstance(schema, dict):
        closed = {name: strict(value) for name, value in schema.items()}
        if schema.get("type") == "object":
            assert set(schema["required"]) == set(schema["properties"])
            closed["additionalProperties"] = False
        return closed
    return [strict(one) for one in schema] if isinstance(schema, list) else schema


@pytest.fixture(scope="session")
def valid() -> Callable[[Any], Any]:
    """Gives a document that agrees with the schema; raises for any other."""
    validate: Callable[[Any], Any] = fastjsonschema.compile(strict(json.loads(SCHEMA.read_text())))
    return validate


def test_schema_knows_every_status_and_source() -> None:
    definitions = json.loads(SCHEMA.read_text())["definitions"]
    assert {one.value for one in Status} == set(definitions["library"]["properties"]["status"]["enum"])
    assert {one.value for one in Source} <= set(definitions["field"]["properties"]["source"]["enum"])


@pytest.mark.parametrize("version", golang.VERSIONS)
def test_json_agrees_with_the_schema_and_with_go(
    version: str, gospan: Gospan, valid: Callable[[Any], Any]
) -> None:
    path = golang.build("http_server", go=version)
    result = gospan("inspect", str(path), "--json")
    assert (result.status, result.err) == (0, "")
    report = valid(json.loads(result.out))
    assert report["path"] == str(path)
    assert report["go_version"] == f"go{version}"
    assert report["arch"] == "amd64"
    assert report["build_id"] == golang.go_tool("tool", "buildid", str(path)).strip()
    lines = [line.split("\t")[1:] for line in golang.go_tool("version", "-m", str(path)).splitlines()[1:]]
    assert ["mod", report["module"]["path"], report["module"]["version"]] in [line[:3] for line in lines]
    assert ["path", report["package"]] in lines
    assert [[one["path"], one["version"], one["sum"]] for one in report["dependencies"]] == [
        line[1:4] for line in lines if line[0] == "dep"
    ]

    [library] = report["libraries"]
    assert (library["name"], library["version"]) == ("net/http server", f"go{version}")
    probes = {one["program"]: one for one in library["probes"]}
    assert probes["http_server_start"]["symbol"] == "net/http.serverHandler.ServeHTTP"
    assert all(one["emulated"] for one in probes.values())
    fields = {one["field"]: one for one in library["fields"]}
    method = {"field": "net/http.Request.Method", "offset": 0, "source": "type information"}
    assert fields["net/http.Request.Method"] == method
    assert fields["runtime.g.goid"]["offset"] > 0
    minor = int(version.split(".")[1])
    lacking = {one["what"]: one["why"] for one in library["off"]}
    assert ("http.route" in lacking) == (minor < 22)
    assert library["status"] == ("partial" if minor < 22 else "on")
    if minor < 22:
        assert lacking["http.route"].endswith("(http.ServeMux has patterns since Go 1.22)")


def test_probes_lie_in_the_functions_that_go_says(gospan: Gospan) -> None:
    """By the symbol table of the unstripped twin, which has the same code at the same file offsets."""
    path = golang.build("http_server", mode="plain")
    [library] = json.loads(gospan("inspect", str(path), "--json").out)["libraries"]
    with Executable(str(path)) as executable:
        segments = [one for one in executable.segments if one.executable]
    symbols = {}
    for line in golang.go_tool("tool", "nm", "-size", "-type", str(path)).splitlines():
        words = line.split(maxsplit=3)
        if len(words) == 4 and words[2] in "Tt":
            symbols[words[3]] = (int(words[0], 16), int(words[1]))
    assert len(library["probes"]) >= 6
    for probe in library["probes"]:
        address, size = symbols[probe["symbol"]]
        [offset] = [
            address - one.address + one.offset for one in segments if one.address <= address < one.end
        ]
        assert offset <= probe["file_offset"] < offset + size


@pytest.mark.parametrize(("arch", "mode"), [("arm64", "stripped"), ("amd64", "pie-no-sections")])
def test_other_machines_and_forms(arch: str, mode: str, gospan: Gospan, valid: Callable[[Any], Any]) -> None:
    path = golang.build("http_server", arch=arch, mode=mode)
    report = valid(json.loads(gospan("inspect", str(path), "--json").out))
    assert report["arch"] == arch
    assert report["libraries"][0]["status"] == "on"
    assert f"go{golang.NEWEST}, {arch}" in gospan("inspect", str(path)).out


def test_text_has_everything_that_the_json_has(server: Path, gospan: Gospan) -> None:
    result = gospan("inspect", str(server))
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == str(server)
    assert max(map(len, lines[1:])) <= 100
    assert "\x1b" not in result.out
    words = [line.split() for line in lines]
    report = json.loads(gospan("inspect", str(server), "--json").out)
    assert ["build", "id", report["build_id"]] in words
    [library] = report["libraries"]
    assert f"net/http server  go{golang.NEWEST}  on" in lines
    for probe in library["probes"]:
        assert [probe["symbol"]] in words
        [line] = [one for one in words if one[:1] == [probe["program"]]]
        assert line[1:3] == [probe["at"], hex(probe["file_offset"])]
        assert " ".join(line[3:]) == f"{probe['instruction']} emulated"
    for field in library["fields"]:
        assert [str(field["offset"]), field["field"], *field["source"].split()] in words


def test_what_is_off_is_told_with_its_reason(gospan: Gospan) -> None:
    path = golang.build("http_server", go="1.19.13")
    text = gospan("inspect", str(path)).out
    assert "net/http server  go1.19.13  partly on" in text
    flat = " ".join(text.split())
    assert "\n    http.route: " in text
    assert "(http.ServeMux has patterns since Go 1.22)" in flat


def test_offset_table(gospan: Gospan, tmp_path: Path) -> None:
    """What the executable doesn't describe comes from the table; the rest doesn't."""
    path = golang.build("http_server", go="1.21.13")
    table = tmp_path / "offsets.json"
    offsets = {
        name: [{"from": "1.21.13", "to": "1.21.13", "offset": 424}]
        for name in ("net/http.Request.pat", "net/http.pattern.str", "net/http.Request.Method")
    }
    standard = {"versions": ["1.21.13"], "offsets": offsets}
    document = {"schema": 1, "generated": "2026-02-03T04:05:06Z", "modules": {"std": standard}}
    table.write_text(json.dumps(document))
    result = gospan("inspect", str(path), "--json", "--offsets", str(table))
    assert (result.status, result.err) == (0, "")
    [library] = json.loads(result.out)["libraries"]
    fields = {one["field"]: (one["offset"], one["source"]) for one in library["fields"]}
    assert fields["net/http.pattern.str"] == (424, "offsets.json")
    assert fields["net/http.Request.Method"] == (0, "type information")
    # It does describe requests, and they have no pattern, whatever the table says.
    assert "net/http.Request.pat" not in fields
    assert "http.route" in [one["what"] for one in library["off"]]

    table.write_text("[]")
    refused(
        gospan("inspect", str(path), "--offsets", str(table)),
        f"the offset table can't be used: {table}: is damaged: the table is no JSON object",
    )
    result = gospan("inspect", str(path), "--offsets", f"{tmp_path}/none")
    assert (result.status, result.out) == (1, "")
    assert f"{tmp_path}/none" in result.err


def test_replaced_modules_and_a_program_without_libraries(
    replacing: Path, gospan: Gospan, valid: Callable[[Any], Any]
) -> None:
    result = gospan("inspect", str(replacing), "--json")
    assert result.status == 0
    report = valid(json.loads(result.out))
    near, plain = report["dependencies"]
    assert (near["path"], near["replaced_by"]["path"]) == ("example.com/near", "../near")
    assert (plain["path"], plain["version"]) == ("example.com/plain", "v0.0.0")
    assert report["libraries"] == []
    reason = {"what": "the executable", "why": "it contains none of the libraries that can be traced"}
    assert report["off"] == [reason]
    text = gospan("inspect", str(replacing)).out
    assert "  modules     2\n    example.com/near   v0.0.0\n      => ../near" in text
    assert "the executable: it contains none of the libraries that can be traced" in text


# --- processes ----------------------------------------------------------------------------------------------


@pytest.fixture
def started(replacing: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a copy of its own of the program without libraries."""
    copy = tmp_path / "a program (deleted)"
    shutil.copy(replacing, copy)
    with subprocess.Popen([copy, "wait"]) as process:
        yield process
        process.kill()


def test_process(started: subprocess.Popen[bytes], tmp_path: Path, gospan: Gospan) -> None:
    """Its file is called "… (deleted)" and isn't; then it is replaced, which is what an update does."""
    copy = tmp_path / "a program (deleted)"
    report = json.loads(gospan("inspect", str(started.pid), "--json").out)
    assert (report["path"], report["pid"], report["deleted"]) == (str(copy), started.pid, False)
    assert f"{copy}  (process {started.pid})\n" in gospan("inspect", str(started.pid)).out

    (tmp_path / "new").write_text("another file\n")
    (tmp_path / "new").rename(copy)
    report = json.loads(gospan("inspect", str(started.pid), "--json").out)
    assert (report["path"], report["deleted"]) == (str(copy), True)
    assert report["module"]["path"] == "example.com/app"
    assert f"(process {started.pid}, which runs a deleted file)" in gospan("inspect", str(started.pid)).out


@pytest.mark.kernel
def test_process_in_another_mount_namespace(replacing: Path, tmp_path: Path, gospan: Gospan) -> None:
    """As in a container: the path leads nowhere from here."""
    script = 'mount -t tmpfs none "$1" && cp "$2" "$1/inside" && exec "$1/inside" wait'
    command = ["unshare", "--mount", "sh", "-c", script, "-", str(tmp_path), str(replacing)]
    with subprocess.Popen(command) as process:
        try:
            inside = tmp_path / "inside"
            exe = Path(f"/proc/{process.pid}/exe")
            while str(exe.readlink()) != str(inside):
                assert process.poll() is None
            assert not inside.exists()
            report = json.loads(gospan("inspect", str(process.pid), "--json").out)
            assert (report["path"], report["deleted"]) == (str(inside), False)
            assert report["module"]["path"] == "example.com/app"
        finally:
            process.kill()


# --- what can't be inspected --------------------------------------------------------------------------------


def refused(result: Result, message: str) -> None:
    """One sentence on standard error, nothing on standard output, status 1."""
    assert result == Result(1, "", f"gospan: {message}\n")


def test_files_that_are_no_go_programs(tmp_path: Path, server: Path, gospan: Gospan) -> None:
    refused(gospan("inspect", f"{tmp_path}/none"), f"{tmp_path}/none: there is no such file")
    refused(gospan("inspect", str(tmp_path)), f"{tmp_path}: is no regular file")
    text = tmp_path / "text"
    text.write_text("no program\n" * 100)
    refused(gospan("inspect", str(text)), f"{text}: is no ELF file")
    (tmp_path / "empty").touch()
    refused(gospan("inspect", f"{tmp_path}/empty"), f"{tmp_path}/empty: is no ELF file")
    os.mkfifo(tmp_path / "pipe")
    refused(gospan("inspect", f"{tmp_path}/pipe"), f"{tmp_path}/pipe: is no regular file")
    shell = Path("/bin/sh").resolve()
    refused(
        gospan("inspect", str(shell)),
        f"{shell}: has no Go build info: it is no Go program, or a packer or obfuscator removed it",
    )
    cut = tmp_path / "cut"
    cut.write_bytes(server.read_bytes()[: server.stat().st_size // 2])
    result = gospan("inspect", str(cut))
    assert result.status == 1
    assert result.err.startswith(f"gospan: {cut}: is truncated: ")
    old = tmp_path / "old"
    magic = b"\xff Go buildinf:"
    data = bytearray(server.read_bytes())
    data[data.index(magic + b"\x08") + 15] &= ~2  # pointers instead of strings, as before Go 1.18
    old.write_bytes(data)
    result = gospan("inspect", str(old))
    assert result.status == 1
    assert "was built with Go before 1.18; 1.19 is the oldest supported" in result.err


def test_processes_that_run_no_file(gospan: Gospan) -> None:
    limit = int(Path("/proc/sys/kernel/pid_max").read_text())
    refused(gospan("inspect", str(limit + 1)), f"there is no process {limit + 1}")
    refused(gospan("inspect", "0"), "there is no process 0")
    with subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        refused(
            gospan("inspect", str(zombie.pid)),
            f"process {zombie.pid} has ended, and only waits for its parent to notice",
        )


@pytest.mark.kernel
def test_thread_of_the_kernel(gospan: Gospan) -> None:
    refused(gospan("inspect", "2"), "process 2 is a thread of the kernel, which runs no file")


@pytest.mark.kernel
def test_without_privileges(server: Path, tmp_path: Path) -> None:
    """A readable file is all it takes; what isn't readable is told as such."""
    result = gospan_process("inspect", str(server), "--json", wrapper=POWERLESS)
    assert (result.status, result.err) == (0, "")
    assert json.loads(result.out)["libraries"][0]["status"] == "on"

    others = tmp_path / "others"
    shutil.copy(server, others)
    others.chmod(0o711)
    os.chown(others, 65534, 65534)
    refused(
        gospan_process("inspect", str(others), wrapper=POWERLESS), f"{others}: you may not read it; try sudo"
    )

    with subprocess.Popen(["setpriv", "--reuid=65534", "--clear-groups", "sleep", "60"]) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
            assert process.poll() is None
        try:
            refused(
                gospan_process("inspect", str(process.pid), wrapper=POWERLESS),
                f"process {process.pid} may not be looked at: CAP_SYS_PTRACE is missing, "
                "or a security module forbids it",
            )
        finally:
            process.kill()
    ours = os.getpid()
    sentence = f"process {ours} is another user's, or its program may not be read by you; try sudo"
    assert as_nobody(lambda: open_process(ours).path) == sentence


def test_missing_bpf_objects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Path, gospan: Gospan
) -> None:
    def elsewhere(name: str) -> Path:
        return tmp_path / f"{name}.bpf.o"

    monkeypatch.setattr("agent.commands.inspect.object_file", elsewhere)
    refused(
        gospan("inspect", str(server)),
        f"the BPF object {tmp_path}/net_http_server.bpf.o is missing; "
        "`make setup` in the source compiles it, packages bring it along",
    )
    elsewhere("net_http_server").write_text("not an object")
    result = gospan("inspect", str(server))
    assert result.status == 1
    assert "make bpf" in result.err
    assert isinstance(btf.read(str(object_file("net_http_server"))), btf.Btf)


def test_hostile_names_control_no_terminal(replacing: Path, tmp_path: Path, gospan: Gospan) -> None:
    """A module's path is whatever the file says it is."""
    data = replacing.read_bytes()
    old, new = b"dep\texample.com/near", b"dep\texample.co\x1b[2Jxr"
    assert len(old) == len(new)
    assert data.count(old) >= 1
    path = tmp_path / "hostile\x1b[31m"
    path.write_bytes(data.replace(old, new))
    text = gospan("inspect", str(path)).out
    assert "\x1b" not in text
    assert "example.co\\x1b[2Jxr" in text
    assert "hostile\\x1b[31m" in text
    assert "\x1b" not in gospan("inspect", f"{path}.none").err
    report = json.loads(gospan("inspect", str(path), "--json").out)
    assert report["dependencies"][0]["path"] == "example.co\x1b[2Jxr"


def test_path_that_is_not_utf_8(server: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copy(server, path)
    for flags in ((), ("--json",)):
        result = gospan_process("inspect", str(path), *flags)
        assert (result.status, result.err) == (0, "")
        assert "caf\\udce9" in result.out
