"""Reading the configuration again while the agent runs: what stays is not touched, and a bad file changes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.libraries import LIBRARIES
from tests.spans.collector import Collector
from tests.spans.collector import serving as collecting
from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.golang import build
from tests.support.http import Server, serving

pytestmark = pytest.mark.kernel


class Rig:
    """A daemon with a configuration file, and two servers of which each has a file of its own."""

    def __init__(self, daemon: Daemon, config: Path, stays: Server, goes: Server) -> None:
        self.daemon, self.config, self.stays, self.goes = daemon, config, stays, goes
        self.base = config.read_text()
        self.port = str(daemon.collector.port)

    def reload(self, text: str) -> str:
        """Write the configuration and have it read; give what was said of it."""
        self.config.write_text(text)
        before = len(self.said())
        self.daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(self.said()) > before, "the reload is told")
        return self.said()[-1]

    def said(self) -> list[str]:
        return [
            one["message"] for one in self.daemon.messages if one["message"].startswith("the configuration ")
        ]

    def attached(self) -> dict[str, str]:
        """The kernel's own numbers of all attachments, by descriptor: one that is made anew has another number."""
        found = {}
        directory = Path(f"/proc/{self.daemon.process.pid}")
        for descriptor in (directory / "fd").iterdir():
            try:
                link = str(descriptor.readlink())
            except FileNotFoundError:
                continue  # something else that the agent had open for a moment
            if link in ("anon_inode:bpf_link", "anon_inode:[perf_event]"):
                info = (directory / "fdinfo" / descriptor.name).read_text().splitlines()
                numbers = [line for line in info if line.startswith("link_id")]
                found[descriptor.name] = numbers[0] if numbers else link
        return found

    def get(self, server: Server, path: str) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{server.port('http1')}{path}", timeout=30).read()

    def paths(self, server: Server) -> list[str]:
        return [attributes(span)["url.path"] for span in self.daemon.spans_of(server.pid)]

    def until_span(self, server: Server, path: str) -> None:
        self.get(server, path)
        eventually(lambda: path.partition("?")[0] in self.paths(server), f"the span of {path}")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    programs = [tmp_path / "stays", tmp_path / "goes"]
    for program in programs:
        shutil.copy(build("http_server"), program)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[discovery]\ninclude = [{{ exe = "{tmp_path}/*" }}]\n'
        '[export]\nendpoint = "http://127.0.0.1:PORT"\nschedule_delay = "100ms"\n'
    )
    with (
        serving(programs[0]) as stays,
        serving(programs[1]) as goes,
        running(config=config) as daemon,
    ):
        made = Rig(daemon, config, stays, goes)
        for server in (stays, goes):
            made.until_span(server, "/static/first")
        yield made
        daemon.stop()


def test_a_bad_file_changes_nothing_and_is_told_in_a_line(rig: Rig) -> None:
    attached = rig.attached()
    message = rig.reload(rig.base + 'endpont = "x"\ntimeout = "soon"\n')
    line = rig.base.count("\n") + 1
    assert message == (
        f"the configuration stays as it is: {rig.config}:{line}: unknown key 'endpont' in [export]; "
        "did you mean 'endpoint'? (and 1 more)"
    )
    assert rig.reload("[[").startswith(f"the configuration stays as it is: {rig.config}:1: isn't valid TOML")
    assert rig.attached() == attached
    for server in (rig.stays, rig.goes):
        rig.until_span(server, "/static/after")
    assert rig.reload(rig.base) == "the configuration was read again: nothing has changed"


def test_what_can_be_applied_is_without_detaching_what_stays(rig: Rig, tmp_path: Path) -> None:
    attached = rig.attached()
    slow = threading.Thread(target=rig.get, args=(rig.stays, "/static/slow?sleep=2s"))
    slow.start()
    with collecting(Collector()) as other:
        message = rig.reload(
            f'[discovery]\ninclude = [{{ exe = "{tmp_path}/*" }}]\nexclude = [{{ exe = "*/goes" }}]\n'
            f'[[discovery.rules]]\nexe = "*/stays"\nservice_name = "renamed"\n'
            f'[export]\nendpoint = "http://127.0.0.1:{other.port}"\nschedule_delay = "100ms"\n'
            'headers = { x-key = "hush" }\n'
            '[log]\nlevel = "debug"\n[kernel]\nbuffer_size = "8MiB"\n'
        )
        assert message == (
            "the configuration was read again: changed export.endpoint, export.headers, discovery.exclude, "
            # The agent's own metrics go where spans do.
            "discovery.rules, metrics.endpoint, metrics.headers, log.level; "
            "kernel.buffer_size will change at the next start"
        )
        kept = rig.attached()
        assert kept.items() < attached.items()
        assert len(kept) < len(attached)
        assert rig.daemon.said(f"no longer tracing {tmp_path}/goes: none of its processes is to be traced")
        slow.join()
        rig.get(rig.goes, "/static/unseen")
        rig.get(rig.stays, "/static/seen")
        rig.daemon.collector = other
        eventually(lambda: {"/static/slow", "/static/seen"} <= set(rig.paths(rig.stays)), "both spans")
        assert "/static/unseen" not in rig.paths(rig.goes)
        assert {resource["service.name"] for resource, _ in rig.daemon.spans()} == {"renamed"}
        assert other.metadata[-1]["x-key"] == "hush"
        # And back: the program that was left out is traced again, the other one is still not touched.
        rig.reload(rig.base.replace(rig.port, str(other.port)))
        rig.until_span(rig.goes, "/static/again")
        assert kept.items() < rig.attached().items()
        rig.reload(rig.base)
    assert "hush" not in str(rig.daemon.messages)


def test_libraries_are_turned_off_and_on(rig: Rig) -> None:
    attached = rig.attached()
    names = [library.name for library in LIBRARIES]
    rig.reload(rig.base + f"[libraries]\ndisabled = {names}\n".replace("'", '"'))
    assert len(rig.attached()) < len(attached)
    rig.get(rig.stays, "/static/off")
    rig.reload(rig.base)
    rig.until_span(rig.stays, "/static/on")
    assert "/static/off" not in rig.paths(rig.stays)
    # For one program alone; the file of the other is left alone.
    attached = rig.attached()
    rig.reload(
        rig.base.replace(
            "[export]", '[[discovery.rules]]\nexe = "*/goes"\nlibraries_disabled = NAMES\n[export]'
        )
        .replace("NAMES", str(names))
        .replace("'", '"')
    )
    assert rig.attached().items() < attached.items()
    rig.get(rig.goes, "/static/off")
    rig.until_span(rig.stays, "/static/on/too")
    assert "/static/off" not in rig.paths(rig.goes)


def test_headers_are_captured_by_the_rule_that_counts_now(rig: Rig) -> None:
    attached = rig.attached()

    def captured(server: Server, path: str) -> set[str]:
        rig.until_span(server, f"{path}?header=3")
        (span,) = [one for one in rig.daemon.spans_of(server.pid) if attributes(one)["url.path"] == path]
        return {name for name in attributes(span) if name.startswith("http.response.header.")}

    assert captured(rig.stays, "/static/none") == set()
    rule = '[[discovery.rules]]\nexe = "*/goes"\nresponse_headers = ["x-number-1", "x-number-2"]\n'
    wanted = '[http]\nresponse_headers = ["X-Number-0"]\n'
    rig.reload(rig.base + rule + wanted)
    assert captured(rig.stays, "/static/one") == {"http.response.header.x-number-0"}
    two = {"http.response.header.x-number-1", "http.response.header.x-number-2"}
    assert captured(rig.goes, "/static/two") == two
    rig.reload(rig.base + rule)
    assert captured(rig.stays, "/static/none/again") == set()
    assert captured(rig.goes, "/static/two/still") == two
    assert rig.attached() == attached


def test_what_waits_for_a_dead_collector_goes_to_the_new_one(rig: Rig) -> None:
    with collecting(Collector()) as alive:
        port = alive.port
    dead = rig.base.replace(rig.port, str(port))
    rig.reload(dead)
    rig.get(rig.stays, "/static/waiting")
    eventually(lambda: rig.daemon.said("Spans don't reach"), "nobody answers")
    rig.reload(rig.base)
    eventually(lambda: "/static/waiting" in rig.paths(rig.stays), "what waited has arrived")


def test_a_terminal_that_is_gone_ends_the_agent() -> None:
    """SIGHUP means a reload only where there is no terminal that hangs up."""
    terminal, other_end = os.openpty()
    with running("discovery.enabled=no", stdin=other_end) as daemon:
        os.close(other_end)
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: daemon.said("the configuration was read again"), "a reload")
        os.close(terminal)
        daemon.process.send_signal(signal.SIGHUP)
        assert daemon.process.wait(60) == 0
