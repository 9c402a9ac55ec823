"""Servers that a distribution built and packaged are traced as well as our own."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.executable.packages import go_programs
from tests.support.comparison import compare
from tests.support.daemon import Daemon, eventually, running
from tests.support.http import Server, expects_span, send

pytestmark = pytest.mark.kernel

Command = Callable[[Path, dict[str, int]], list[str]]


def node_exporter(_: Path, ports: dict[str, int]) -> list[str]:
    return [f"--web.listen-address=127.0.0.1:{ports['http']}", "--collector.disable-defaults"]


def docker_registry(directory: Path, ports: dict[str, int]) -> list[str]:
    config = directory / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {directory}}}}}\n"
        f"http: {{addr: '127.0.0.1:{ports['http']}'}}\n"
    )
    return ["serve", str(config)]


def etcd(directory: Path, ports: dict[str, int]) -> list[str]:
    client, peer = f"http://127.0.0.1:{ports['http']}", f"http://127.0.0.1:{ports['peer']}"
    return [
        *(f"--data-dir={directory}/etcd", f"--listen-client-urls={client}"),
        *(f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"),
        *(f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"),
    ]


def caddy(directory: Path, ports: dict[str, int]) -> list[str]:
    config = directory / "Caddyfile"
    config.write_text(
        "{\n admin off\n skip_install_trust\n auto_https disable_redirects\n"
        " servers {\n  protocols h1 h2 h2c\n }\n}\n"
        f"http://:{ports['http']}, http://:{ports['h2c']} {{\n bind 127.0.0.1\n"
        ' respond /items/* "an item" 201\n respond /static/* "gone" 503\n}\n'
        f'https://127.0.0.1:{ports["https"]} {{\n tls internal\n respond "secret"\n}}\n'
    )
    return ["run", "--config", str(config), "--adapter", "caddyfile"]


SERVERS: dict[str, tuple[Command, tuple[str, ...]]] = {
    "prometheus-node-exporter": (node_exporter, ("http1",)),
    "docker-registry": (docker_registry, ("http1", "close")),
    "etcd-server": (etcd, ("http1", "http1.0")),
    "caddy": (caddy, ("http1", "h2c", "h2")),
}


@contextmanager
def serving(program: Path, command: Command, directory: Path) -> Iterator[Server]:
    """Run a server on ports of its own until the block ends."""
    with socket.socket() as a, socket.socket() as b, socket.socket() as c, socket.socket() as d:
        for one in (a, b, c, d):
            one.bind(("127.0.0.1", 0))
        ports = {
            name: one.getsockname()[1]
            for name, one in zip(("http", "https", "h2c", "peer"), (a, b, c, d), strict=True)
        }
    environ = os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    with (directory / "output").open("w") as output:
        arguments = command(directory, ports)
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output, env=environ)

    def listens() -> bool:
        assert process.poll() is None, (directory / "output").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", ports["http"])):
            return True
        return False

    try:
        eventually(listens, f"{program} listens")
        yield Server(process.pid, program, ports)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as started:
        yield started
        started.stop()


@pytest.mark.parametrize("package", SERVERS)
def test_a_server_of_the_distribution(package: str, daemon: Daemon, tmp_path: Path) -> None:
    command, modes = SERVERS[package]
    (program,) = go_programs(package)
    log = tmp_path / "log"
    log.touch()
    with serving(program, command, tmp_path) as server:
        eventually(lambda: daemon.traces(str(program)), f"{program} is traced")
        before = len(daemon.spans_of(server.pid))
        lines = [line for mode in modes for line in send(server, mode, requests=300)]
        wanted = [line for line in lines if expects_span(line)]
        eventually(lambda: len(daemon.spans_of(server.pid)) >= len(wanted), f"{len(wanted)} spans")
        # A server may have clients besides.
        compare(daemon.spans_of(server.pid), wanted, log, "1.19", others=bool(before))
