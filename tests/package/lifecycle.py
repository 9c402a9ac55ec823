"""What an administrator does with the package, from installing it to purging it: `python -m tests.package.lifecycle`.

Runs as root in a Debian that systemd has booted and nobody else uses. The arguments are two packages, the second of a
later version, and programs of tests/apps, as name=path. Each step is a function whose docstring is what it shows; the
first that fails ends it, and the journal is printed.
"""

# ruff: noqa: T201 (a program for the terminal)

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.package import everything, scheduled
from tests.package.system import (
    EMULATED,
    Unexpected,
    apt,
    bpf_objects,
    call,
    entries,
    eventually,
    expect,
    files,
    is_active,
    journal,
    main_pid,
    processes,
    show,
    systemctl,
)
from tests.spans.collector import Collector, serving
from tests.support import calls
from tests.support.daemon import attributes

PROJECT = Path(__file__).resolve().parents[2]
SHOP = Path("/srv/shop/shop")
CONFIG = Path("/etc/gospan/config.toml")
DROP_IN = CONFIG.parent / "conf.d/50-team.toml"
SECRET = "hunter2-of-the-collector"  # noqa: S105 -- to be found where it must not be

# agent/log.py, Event; written out, for they never change.
ATTACHED = "98bbb93ea42041d4b45fdbd8884b2d77"
FAILING = "d03225bfbd55449aac52b788c8035ce0"
RECOVERED = "7f8f107a44344655bb779eb2d787de95"

EXPOSURE = 4.0
"""What `systemd-analyze security` may say at most."""
CAPABILITIES = {"BPF", "PERFMON", "SYS_ADMIN", "DAC_OVERRIDE", "SYS_PTRACE", "LEASE", "DAC_READ_SEARCH"}
_NUMBERS = {
    "DAC_OVERRIDE": 1,
    "DAC_READ_SEARCH": 2,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
    "LEASE": 28,
    "PERFMON": 38,
    "BPF": 39,
}


@dataclass
class World:
    """What the steps share."""

    packages: tuple[Path, Path]
    programs: Mapping[str, Path]
    collector: Collector = field(default_factory=Collector)
    collecting: ExitStack = field(default_factory=ExitStack)
    before: set[str] = field(default_factory=set)

    def collect(self) -> None:
        """Start the collector where gospan looks for one by itself."""
        self.collecting.enter_context(serving(self.collector, address="127.0.0.1:4317"))

    def spans_of(self, path: str) -> list[dict[str, Any]]:
        """The resource's attributes of each span for a path that has arrived."""
        return [resource for resource, _, span in self.arrived() if attributes(span).get("url.path") == path]

    def arrived(self) -> Iterator[tuple[dict[str, Any], str, Span]]:
        """The resource's attributes, the scope's name and each span that has arrived."""
        with self.collector.lock:
            requests = list(self.collector.requests)
        for request in requests:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        yield attributes(resource.resource), scope.scope.name, span

    def traced(self) -> dict[str, Any]:
        """Ask the shop until a span of it arrives, and give its resource's attributes: a daemon needs a moment."""
        path = f"/traced/{time.monotonic_ns()}"

        def arrived() -> bool:
            get(path)
            time.sleep(0.5)
            return bool(self.spans_of(path))

        eventually(arrived, f"spans arrive; {show('gospan', 'StatusText')}")
        return self.spans_of(path)[0]


def get(path: str = "/") -> int:
    """The status of the shop's answer, 0 for none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:8080{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def version_of(package: Path) -> str:
    """The version that a package's file bears in its name."""
    return package.name.split("_")[1]


def spare_the_processor() -> None:
    """Leave out what takes an emulated one minutes, and shows in namespaces: compiling 1300 modules, and loading each
    program into the kernel once more before the start. A single one may take as long as the watchdog waits.
    """
    Path("/usr/local/bin/py3compile").symlink_to("/bin/true")
    drop_in = Path("/run/systemd/system/gospan.service.d/emulated.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nExecStartPre=\nWatchdogSec=10min\nTimeoutStartSec=10min\n")


def installs(world: World) -> None:
    """The package installs without network or compiler; nothing is started, all is ready for the next boot."""
    if EMULATED:
        spare_the_processor()
    world.before = files(PROJECT)
    apt("install", str(world.packages[0]))
    expect(not is_active(), "the service is not started")
    expect(systemctl("is-enabled", "gospan").strip() == "enabled", "the service is enabled")
    expect(call("gospan", "--version").strip().endswith(version_of(world.packages[0])), "gospan --version")
    expect(stat.S_IMODE(CONFIG.stat().st_mode) == 0o640, "config.toml has mode 0640")
    expect(CONFIG.group() == "gospan", "config.toml belongs to the group gospan")
    expect(call("dpkg", "--verify", "gospan") == "", "the files are those of the package")
    if EMULATED:
        return  # this is one more time, too
    report = json.loads(call("gospan", "check", "--json", check=False))
    bad = [one["sentence"] for one in report["findings"] if one["level"] == "failure"]
    expect(not bad, f"gospan check: {bad}")


def starts(world: World) -> None:
    """`systemctl start gospan` is all: a program that runs already is traced, and the journal says so."""
    SHOP.parent.mkdir()
    shutil.copy(world.programs["http_server"], SHOP)
    run = ["systemd-run", "--quiet", "--unit=shop", "--property=User=nobody", "--property=PrivateTmp=yes"]
    call(*run, str(SHOP), "-http", "127.0.0.1:8080")
    eventually(lambda: get(), "the shop answers")
    began = time.time()
    systemctl("start", "gospan")
    print(f"    started in {time.time() - began:.1f} s")
    eventually(lambda: entries(ATTACHED, since=began), "the journal tells of what is traced")
    [entry] = entries(ATTACHED, since=began)
    expect(entry["GOSPAN_EXE"] == str(SHOP), f"GOSPAN_EXE names the executable: {entry}")
    expect(entry["PRIORITY"] == "5" and entry["_SYSTEMD_UNIT"] == "gospan.service", f"{entry}")
    explained = call("journalctl", "-x", "--no-pager", f"MESSAGE_ID={ATTACHED}")
    expect(f"{SHOP} is traced" in explained, f"journalctl -x explains it: {explained}")
    eventually(lambda: "tracing 1 process" in show("gospan", "StatusText"), "the status line counts it")


def traces(world: World) -> None:
    """Spans arrive where OpenTelemetry expects a collector, named after the program's unit."""
    resource = world.traced()
    expect(resource["service.name"] == "shop", f"service.name is the unit's name: {resource}")


def is_confined(_world: World) -> None:
    """The process has the capabilities that the unit lists and no others; systemd finds little that could be taken."""
    status = Path(f"/proc/{main_pid()}/status").read_text()
    fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    listed = sum(1 << _NUMBERS[name] for name in CAPABILITIES)
    for name in ("CapBnd", "CapPrm", "CapEff"):
        expect(int(fields[name], 16) == listed, f"{name} {fields[name]}")
    expect(fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2", "no new privileges, filtered calls")
    rating = call("systemd-analyze", "security", "gospan", "--no-pager", check=False)
    found = re.search(r"exposure level for gospan.service: ([\d.]+)", rating)
    expect(found, rating)
    print(f"    systemd-analyze security: {found and found[1]}")
    expect(found and float(found[1]) <= EXPOSURE, rating)


def traces_every_library(world: World) -> None:
    """Confined so, it attaches to every library, and the spans of each arrive."""
    wanted = {(name, f"gospan/{scope}") for name, scopes in everything.SCOPES.items() for scope in scopes}
    wanted |= {("routers", route) for route in everything.ROUTES.values()}
    wanted |= {(name, library) for name, libraries in everything.ATTACHED.items() for library in libraries}
    name_of = {str(path): name for name, path in world.programs.items()}

    def missing() -> set[tuple[str, str]]:
        found = set()
        for resource, scope, span in world.arrived():
            name = name_of.get(resource["process.executable.path"], "")
            found |= {(name, scope), (name, attributes(span).get("http.route", ""))}
        # While it attaches it may be too busy to answer.
        said = call("gospan", "status", "--json", check=False)
        for executable in json.loads(said)["executables"] if said else ():
            name = name_of.get(executable["path"], "")
            found |= {(name, one["name"]) for one in executable["libraries"] if one["status"] == "on"}
        return wanted - found

    with everything.running(world.programs) as programs:

        def all_arrived() -> bool:
            programs.ask()
            time.sleep(1)
            return not missing()

        try:
            eventually(all_arrived, "every library's spans arrive")
        except Unexpected as error:
            report = call("gospan", "status", "--json")
            raise Unexpected(f"{error}; missing: {sorted(missing())}\n{report}") from error
        report = json.loads(call("gospan", "status", "--json"))
    # What a program doesn't contain is off in it; what the unit forbids would be refused.
    expect(not report["kernel"]["refused"], f"nothing is refused: {report['kernel']['refused']}")
    print(f"    {len(wanted)} kinds of spans of {len(everything.SCOPES)} programs")


def joins(world: World) -> None:
    """Where nothing is written into requests, the two ends of a connection are joined all the same."""
    DROP_IN.write_text("[propagation]\nhttp1 = false\nhttp2 = false\n")
    systemctl("restart", "gospan")

    def joined() -> bool:
        asking.ask("/handler", 1)
        time.sleep(0.5)
        spans = [span for resource, _, span in world.arrived() if resource["process.pid"] == asking.pid]
        clients = {span.span_id for span in spans if span.kind == Span.SPAN_KIND_CLIENT}
        return any(span.kind == Span.SPAN_KIND_SERVER and span.parent_span_id in clients for span in spans)

    with calls.calling(world.programs["http_calls"]) as asking:
        eventually(joined, "a server's span is its client's child")
        report = json.loads(call("gospan", "status", "--json"))
    propagation = report["propagation"]
    expect(propagation["joined"] and not propagation["written"], f"{propagation}")
    DROP_IN.unlink()  # in force from the restart in the next step on


def keeps_secrets(world: World) -> None:
    """Headers come from a file that root alone may read, reach the collector, and are written nowhere."""
    headers = CONFIG.parent / "headers"
    headers.touch(0o600)
    headers.write_text(f"api-key: {SECRET}\n")
    systemctl("restart", "gospan")
    world.traced()
    with world.collector.lock:
        expect(world.collector.metadata[-1].get("api-key") == SECRET, "the collector gets the header")
    told = journal() + call("gospan", "check", check=False) + call("gospan", "check", "--show-config")
    expect(SECRET not in told, "the secret is not told")


def waits_for_the_collector(world: World) -> None:
    """A collector that goes away is told of once, and so is its return; what was traced meanwhile arrives then."""
    mark = time.time()
    world.collecting.close()
    path = f"/meanwhile/{time.monotonic_ns()}"
    get(path)
    eventually(lambda: entries(FAILING, since=mark), "export failing is told")
    time.sleep(2)
    get(path)
    world.collect()
    eventually(lambda: len(world.spans_of(path)) == 2, "what waited arrives")
    eventually(lambda: entries(RECOVERED, since=mark), "export recovered is told")
    failing, recovered = entries(FAILING, since=mark), entries(RECOVERED, since=mark)
    expect((len(failing), len(recovered)) == (1, 1), f"each once: {failing + recovered}")
    expect((failing[0]["PRIORITY"], recovered[0]["PRIORITY"]) == ("4", "5"), "priorities")


def reloads(world: World) -> None:
    """A new configuration is taken over by the same process; one that is wrong changes nothing, and is told of."""
    pid = main_pid()
    DROP_IN.write_text('[resource]\nattributes = { team = "blue" }\n')
    systemctl("reload", "gospan")
    eventually(lambda: world.traced().get("team") == "blue", "the new configuration is in force")
    mark = time.time()
    DROP_IN.write_text('[resource]\natributes = { team = "red" }\n')
    try:
        systemctl("reload", "gospan")
    except Unexpected:
        pass
    else:
        raise Unexpected("the reload of a wrong configuration doesn't fail")
    said = " ".join(journal(since=mark).split())
    expect(f"{DROP_IN}:2: unknown key 'atributes'" in said, f"the journal has file, line and key: {said}")
    expect("did you mean 'attributes'?" in said, "and the right key")
    expect(main_pid() == pid and is_active(), "the same process goes on")
    expect(world.traced().get("team") == "blue", "with the configuration that it had")
    DROP_IN.unlink()


def fetches_offsets(world: World) -> None:
    """A table of offsets is fetched on a schedule, by a user without rights, and taken by the daemon that runs."""
    pid = main_pid()
    scheduled.fetch_by_timer(time.time())
    expect(main_pid() == pid, "without a restart")
    world.traced()


def is_watched(world: World) -> None:
    """A daemon that works is left alone; one that hangs is killed and started again."""
    drop_in = Path("/run/systemd/system/gospan.service.d/watchdog.conf")
    drop_in.parent.mkdir(parents=True)
    seconds = 20 if EMULATED else 4
    drop_in.write_text(f"[Service]\nWatchdogSec={seconds}\nRestartSec=1\n")
    systemctl("daemon-reload")
    systemctl("restart", "gospan")
    time.sleep(1.5 * seconds)
    expect(show("gospan", "NRestarts") == "0", "a daemon that works is left alone")
    hanging = main_pid()
    os.kill(hanging, signal.SIGSTOP)
    eventually(lambda: show("gospan", "NRestarts") == "1" and is_active(), "systemd restarts it")
    expect(main_pid() != hanging, "it is another process")
    expect("Watchdog timeout" in journal(), "the journal says why")
    world.traced()
    shutil.rmtree(drop_in.parent)
    systemctl("daemon-reload")


def comes_back(world: World) -> None:
    """A daemon that dies is started again."""
    pid = main_pid()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: main_pid() not in (0, pid) and is_active(), "systemd restarts it")
    world.traced()


def upgrades(world: World) -> None:
    """An upgrade keeps the configuration, also where it was changed, and restarts the running service."""
    text = CONFIG.read_text().replace("\n[resource]\n", '\n[resource]\nattributes = { team = "green" }\n')
    CONFIG.write_text(text)
    pid = main_pid()
    apt("install", str(world.packages[1]))
    expect(CONFIG.read_text() == text, "the configuration is as it was")
    expect(CONFIG.group() == "gospan" and stat.S_IMODE(CONFIG.stat().st_mode) == 0o640, "and its mode")
    expect(main_pid() != pid and is_active(), "the service was restarted")
    expect(call("gospan", "--version").strip().endswith(version_of(world.packages[1])), "the new version")
    expect(world.traced()["team"] == "green", "with its configuration")


def is_removed(_world: World) -> None:
    """After removal nothing of it runs or is attached; the traced program goes on, and the configuration stays."""
    apt("remove", "gospan")
    expect(not processes("/usr/bin/gospan"), f"processes: {processes('/usr/bin/gospan')}")
    expect(not bpf_objects(), f"BPF: {bpf_objects()}")
    if EMULATED:  # else the kernel is this machine's, where other agents may trace as well
        events = Path("/sys/kernel/tracing/uprobe_events").read_text()
        expect("gospan" not in events, f"no probe is left: {events}")
    expect(get(), "the shop still answers")
    expect(CONFIG.exists() and not Path("/usr/lib/gospan").exists(), "only the configuration stays")


def is_purged(world: World) -> None:
    """After purging there is no file, unit or group that wasn't there before."""
    apt("purge", "gospan")
    systemctl("stop", "shop")
    shutil.rmtree(SHOP.parent)
    after = files(PROJECT)
    expect(not after - world.before, f"files are left: {sorted(after - world.before)[:20]}")
    expect(not world.before - after, f"files of others are gone: {sorted(world.before - after)[:20]}")
    # Asked by name: an emulated processor takes longer over listing all unit files than systemctl waits.
    for unit in ("gospan.service", "gospan-offsets.service", "gospan-offsets.timer"):
        expect(show(unit, "LoadState") == "not-found", f"{unit} is left")
    expect("gospan:" not in Path("/etc/group").read_text(), "the group is gone")


STEPS: tuple[Callable[[World], None], ...] = (
    installs,
    starts,
    traces,
    is_confined,
    traces_every_library,
    joins,
    keeps_secrets,
    waits_for_the_collector,
    reloads,
    fetches_offsets,
    is_watched,
    comes_back,
    upgrades,
    is_removed,
    is_purged,
)


# What an emulated processor, which takes minutes for the rest, does besides: here the kernel is the Debian's own.
EMULATED_STEPS = (
    installs,
    starts,
    traces,
    is_confined,
    traces_every_library,
    reloads,
    upgrades,
    is_removed,
    is_purged,
)


def main(first: str, second: str, *programs: str) -> int:
    """Take the steps; print a line for each, and the journal where one fails. Gives the exit status."""
    named = (program.split("=", 1) for program in programs)
    world = World((Path(first), Path(second)), {name: Path(path) for name, path in named})
    world.collect()
    for step in EMULATED_STEPS if EMULATED else STEPS:
        began = time.monotonic()
        try:
            step(world)
        except (Unexpected, OSError, KeyError, ValueError) as error:
            print(f"  {step.__name__}: FAILED: {type(error).__name__}: {error}")
            with suppress(Unexpected):
                print(journal()[-8000:])
                print(call("systemctl", "status", "--no-pager", "-l", "gospan", "shop", check=False))
            return 1
        print(f"  {step.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
