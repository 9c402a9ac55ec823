"""`gospan status`, `ps`, `spans`, `trace` and `top` against a running agent that traces a real server."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from agent.cli import main
from agent.status.client import connected
from tests.commands.conftest import ROOT, Result, as_nobody, environment, gospan_process
from tests.support.daemon import Daemon, eventually, running
from tests.support.golang import NEWEST, build
from tests.support.http import Server, serving

pytestmark = pytest.mark.kernel

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Rig:
    """An agent without a collector, a server that it traces, and one that it leaves out."""

    daemon: Daemon
    socket: Path
    config: Path
    server: Server
    left_out: Server

    def run(self, *words: str) -> Result:
        """How a command ends that writes into a pipe. In this process, which spares its start."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = main([*words, "--socket", str(self.socket)])
            except SystemExit as end:
                status = int(end.code or 0)
        return Result(status, out.getvalue(), err.getvalue())

    def ask(self, *words: str) -> str:
        """What a command writes that does well."""
        done = self.run(*words)
        assert (done.status, done.err) == (0, ""), done
        return done.out

    def json(self, *words: str) -> Any:
        return json.loads(self.ask(*words, "--json"))

    def get(self, path: str, headers: dict[str, str] | None = None) -> None:
        url = f"http://127.0.0.1:{self.server.port('http1')}{path}"
        try:
            urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=30).read()
        except urllib.error.HTTPError as error:
            error.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    directory = tmp_path_factory.mktemp("status")
    programs = [directory / "server", directory / "left-out"]
    for program in programs:
        shutil.copy(build("http_server"), program)
    config, path = directory / "config.toml", directory / "run" / "sock"
    config.write_text(
        f'[export]\nendpoint = "http://127.0.0.1:PORT"\nheaders = {{ api-key = "hush" }}\n'
        f'[discovery]\ninclude = [{{ exe = "{directory}/*" }}]\nexclude = [{{ exe = "*/left-out" }}]\n'
        f'[[discovery.rules]]\nexe = "*/server"\nservice_name = "shop"\n'
        f'[status]\nsocket = "{path}"\n'
    )
    config.chmod(0o600)
    environ = environment({})
    with (
        serving(programs[0], environ=environ) as server,
        serving(programs[1], environ=environ) as left_out,
        running(config=config, collecting=False, socket=path, environ=environ) as daemon,
    ):
        made = Rig(daemon, path, config, server, left_out)
        made.get("/static/a", {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
        made.get("/static/b?status=500&sleep=500ms", {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
        made.get("/static/c")
        eventually(lambda: len(spans_of(made)) == 3, "three spans")
        yield made


def spans_of(rig: Rig, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rig.ask("spans", "--json", *words).splitlines()]


def in_terminal(
    rig: Rig, *words: str, columns: int = 100, env: dict[str, str] | None = None, until: str = ""
) -> str:
    """What a command writes on a terminal; with `until`, it is interrupted by ctrl-C once that is shown."""
    command = [sys.executable, "-m", "agent", *words]
    extra = {
        "GOSPAN_STATUS_SOCKET": str(rig.socket),
        "TERM": "xterm-256color",
        "COLUMNS": str(columns),
        "LINES": "30",
    }
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=other,
        stdout=other,
        stderr=other,
        env=environment(extra | (env or {})),
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(other)
    parts: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the last one that had it open has closed it
            while data := os.read(terminal, 1 << 16):
                parts.append(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if until:
            eventually(lambda: until.encode() in b"".join(parts), f"{until} is shown")
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == (130 if until else 0), b"".join(parts)
        reader.join(10)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_status(rig: Rig) -> None:
    eventually(lambda: rig.json("status")["export"][0]["failing_since"], "nobody answers the exporter")
    said = rig.ask("status")
    assert "\x1b" not in said
    facts = dict(re.findall(r"^(\w+) {2,}(.+)$", said, re.MULTILINE))
    assert facts["tracing"] == "1 process of 1 executable"
    assert facts["spans"].endswith("3 since the start, 3 kept here")
    assert facts["export"].startswith("failing for ")
    assert f"127.0.0.1:{rig.daemon.collector.port}" in facts["export"]
    assert "3 waiting" in facts["export"]
    assert facts["lost"] == "nothing"
    assert re.match(r"Linux \d+\.\d+\.\d+, probes by \w+, (ring|perf) buffer", facts["kernel"])
    assert facts["propagation"].endswith("are joined by their connections. 0 written, 0 joined")
    assert re.search(r"offsets\.json of 20\d\d-\d\d-\d\d, .+ old$", facts["offsets"])
    assert facts["configuration"] == "as read at the start"
    left_out = (
        rf"{re.escape(str(rig.left_out.executable))} \(process {rig.left_out.pid}\): discovery.exclude has "
    )
    assert re.search(left_out, said)
    assert f"({rig.config}:6)" in said
    assert "hush" not in said + json.dumps(rig.json("status"))


def test_json_is_as_described(rig: Rig) -> None:
    schemas = json.loads((ROOT / "docs/status.schema.json").read_text())

    def check(name: str, value: object) -> None:
        fastjsonschema.compile(schemas | {"$ref": f"#/definitions/{name}"})(value)

    check("status", rig.json("status"))
    check("ps", rig.json("ps"))
    check("process", rig.json("ps", str(rig.server.pid)))
    check("process", rig.json("ps", str(rig.left_out.pid)))
    check("trace", rig.json("trace", TRACE))
    check("top", json.loads(rig.ask("top", "--json", "-n", "1", "--interval", "500ms")))
    for span in spans_of(rig):
        check("span", span)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check("status", rig.json("status") | {"surprise": 1})


def test_ps(rig: Rig) -> None:
    lines = rig.ask("ps").splitlines()
    assert lines[0].split() == ["PID", "SERVICE", "SPANS/S", "ERRORS", "GO", "EXECUTABLE", "TRACED"]
    (traced,) = (line for line in lines if line.split()[0] == str(rig.server.pid))
    assert "shop" in traced
    assert str(rig.server.executable) in traced
    assert NEWEST in traced
    assert "net/http server" in traced
    (left_out,) = (line for line in lines if line.split()[0] == str(rig.left_out.pid))
    assert "no: discovery.exclude has" in left_out
    kept = rig.json("ps", str(rig.server.pid))["kept"]
    assert kept["errors"] >= 1
    assert kept["spans"] >= 3


def test_ps_of_one_process(rig: Rig) -> None:
    said = rig.ask("ps", str(rig.server.pid))
    for words in (
        f"process {rig.server.pid}",
        "shop",
        f"go{NEWEST}",
        "parentbased_always_on",
        "net/http server",
    ):
        assert words in said
    assert "not traced" in rig.ask("ps", str(rig.left_out.pid))
    not_go = rig.run("ps", str(os.getpid()))
    assert not_go.status == 1
    assert not_go.err.endswith("which is not a Go program\n")
    nobody = rig.run("ps", str(2**22 + 1))
    assert (nobody.status, nobody.err) == (1, f"gospan: there is no process {2**22 + 1}\n")


def test_spans(rig: Rig) -> None:
    lines = rig.ask("spans", "-n", "3").splitlines()
    assert len(lines) == 3
    assert all("shop server GET /static/" in line for line in lines)
    assert lines[1].count(" error ") == 1
    assert all(f"trace={TRACE}" in line for line in lines[:2])
    assert [span["attributes"]["url.path"] for span in spans_of(rig, "--trace", TRACE[:6].upper())] == [
        "/static/a",
        "/static/b",
    ]
    (failed,) = spans_of(
        rig, "--status", "error", "--min-duration", "20ms", "--attribute", "url.path=/static/*"
    )
    assert failed["attributes"]["http.response.status_code"] == 500
    assert failed["duration_ns"] >= 20_000_000
    assert spans_of(rig, "--service", "other") == spans_of(rig, "--kind", "client") == []
    # Of those that are wanted, the last: however many others came after them.
    (wanted,) = spans_of(rig, "-n", "1", "--attribute", "url.path=/static/a")
    assert wanted["attributes"]["url.path"] == "/static/a"
    assert spans_of(rig, "-n", "0") == []


def test_spans_are_followed_until_ctrl_c(rig: Rig) -> None:
    command = [
        sys.executable,
        "-m",
        "agent",
        "spans",
        "-f",
        "--json",
        "--attribute",
        "url.path=/static/followed/*",
        "-n",
        "1",
    ]
    rig.get("/static/followed/before")
    eventually(lambda: len(spans_of(rig, "--attribute", "url.path=*/before")) == 1, "it is kept")
    rig.get("/static/unasked")
    env = environment({"GOSPAN_STATUS_SOCKET": str(rig.socket)})
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=ROOT)
    got: list[str] = []
    assert process.stdout is not None
    output = process.stdout
    reader = threading.Thread(target=lambda: got.extend(output), daemon=True)
    reader.start()
    try:
        eventually(lambda: bool(got), "the last one that is wanted is shown")
        for number in range(200):
            rig.get(f"/static/followed/{number}")
            rig.get("/static/unasked")
            time.sleep(0.1)
            if len(got) >= 3:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        reader.join(10)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    before, *paths = [json.loads(line)["attributes"]["url.path"] for line in got]
    assert before == "/static/followed/before"
    assert len(paths) >= 2
    assert paths == [f"/static/followed/{at}" for at in range(len(paths))]


def test_trace(rig: Rig) -> None:
    head, columns, *rows = rig.ask("trace", TRACE[:8]).splitlines()
    assert head.startswith(f"trace {TRACE}  2 spans of 1 process, ")
    assert columns.split() == ["SPAN", "TOOK"]
    assert len(rows) == 2
    assert all(row.startswith("… shop GET") for row in rows)
    assert " 200 " in rows[0]
    assert " 500 " in rows[1]
    # The second lasts longest.
    assert rows[1].count("█") > rows[0].count("█") > 0
    unknown = rig.run("trace", "f" * 32)
    assert unknown.status == 1
    assert re.match(r"gospan: no span of a trace f+ is kept; the last \d+ are, since ", unknown.err)
    assert rig.run("trace", "xyz").status == 2
    ids = {span["trace_id"] for span in spans_of(rig)}
    while len(ids) <= 16:
        rig.get("/static/more")
        ids = {span["trace_id"] for span in spans_of(rig)}
    digit = next(one for one in ids if sum(other[0] == one[0] for other in ids) > 1)[0]
    many = rig.run("trace", digit)
    assert many.status == 1
    assert f" traces begin with {digit}: " in many.err


def test_top(rig: Rig) -> None:
    for _ in range(20):
        rig.get("/static/top")
    lines = rig.ask("top", "-n", "1", "--interval", "1s").splitlines()
    assert re.search(r" spans a second, \d+ errors$", lines[0])
    assert lines[1].split() == [
        "SERVICE",
        "OPERATION",
        "KIND",
        "RATE/S",
        "SPANS",
        "ERRORS",
        "P50",
        "P95",
        "MAX",
    ]
    assert any(
        line.startswith("shop ") and "GET /static/" in line and " server " in line for line in lines[2:]
    )


@pytest.mark.parametrize(
    "words", [["status"], ["ps"], ["spans", "-n", "5"], ["trace", TRACE]], ids=lambda it: it[0]
)
def test_on_a_terminal_the_width_and_no_color_are_respected(rig: Rig, words: list[str]) -> None:
    coloured = in_terminal(rig, *words, columns=72)
    assert "\x1b[" in coloured
    for line in ESCAPE.sub("", coloured).splitlines():
        assert len(line) <= 72, line
    plain = in_terminal(rig, *words, columns=72, env={"NO_COLOR": "1"})
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)
    wanted = {
        "ps": str(rig.server.pid),
        "spans": "GET /static/",
        "trace": "… shop",
        "status": "1 executable",
    }
    if words[0] in ("spans", "trace"):
        assert "\x1b[36mshop \x1b[0m" in coloured  # not faint, as what is beside it
    for output in (coloured, plain):
        assert wanted[words[0]] in ESCAPE.sub("", output)


def test_top_on_a_terminal_until_ctrl_c(rig: Rig) -> None:
    output = in_terminal(rig, "top", "--interval", "200ms", until="shop")
    assert "\x1b[?1049h" in output  # the other screen, and back
    assert "\x1b[?1049l" in output
    assert "shop" in output
    assert "Traceback" not in output


def test_nobody_there_and_not_allowed(rig: Rig, tmp_path: Path) -> None:
    done = gospan_process("status", env={"GOSPAN_STATUS_SOCKET": str(tmp_path / "none")})
    assert (done.status, done.out) == (3, "")
    assert done.err == (
        f"gospan: not running: nobody listens at {tmp_path}/none; `systemctl start gospan` starts it, "
        "--socket or GOSPAN_STATUS_SOCKET names another place\n"
    )
    nowhere = replace(rig, socket=tmp_path / "none")
    for words in (["ps"], ["spans", "-f"], ["trace", "ab"], ["top"]):
        assert nowhere.run(*words) == Result(3, "", done.err)

    def ask() -> str:
        with connected(rig.socket):
            return "connected"

    assert as_nobody(ask).startswith(f"you may not ask at {rig.socket}: use sudo, or join the group")


def test_one_that_is_not_gospan(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        env = environment({})
        command = [sys.executable, "-m", "agent", "status", "--socket", str(path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT) as process:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (
        4,
        "gospan: whoever listens there is not gospan: what it says is no JSON\n",
    )


def test_readers_that_do_not_read_do_not_hold_up_the_agent(rig: Rig) -> None:
    clients = []
    for _ in range(4):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(rig.socket))
        client.sendall(b'{"want": "spans", "follow": true}\n')
        clients.append(client)
    before = rig.json("status")["spans"]["made"]
    for _ in range(300):
        rig.get("/static/unread")
    eventually(lambda: rig.json("status")["spans"]["made"] >= before + 300, "all spans are made")
    assert rig.json("status")["lost"] == {}
    for client in clients:
        client.close()


def test_a_reload_is_told(rig: Rig) -> None:
    good = rig.config.read_text()
    rig.config.write_text(good + "[log]\nlevle = 1\n")
    rig.daemon.process.send_signal(1)
    line = good.count("\n") + 2
    eventually(lambda: bool(rig.json("status")["reload"]), "the reload is told")
    assert rig.json("status")["reload"]["problems"] == [
        f"{rig.config}:{line}: unknown key 'levle' in [log]; did you mean 'level'?"
    ]
    assert f"unchanged: reload failed 0 s ago: {rig.config}:{line}: unknown key" in re.sub(
        r"\d+ s ago", "0 s ago", rig.ask("status")
    )
    rig.config.write_text(good + '[log]\nlevel = "debug"\n[kernel]\nmax_in_flight = 100\n')
    rig.daemon.process.send_signal(1)
    eventually(lambda: not rig.json("status")["reload"]["problems"], "the next reload is told")
    assert re.search(
        r"read again \d+ s ago: log.level changed; kernel.max_in_flight after a restart", rig.ask("status")
    )


def test_the_agent_does_not_import_what_only_commands_need() -> None:
    code = "import sys, agent.start; print({one.split('.')[0] for one in sys.modules} & {'rich', 'pygments'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"
