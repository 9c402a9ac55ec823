"""A PostgreSQL and a MariaDB of the distribution's, as tests start them: on loopback, in a temporary folder."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import create_server
from typing import IO

from tests.support.daemon import eventually

USER, DATABASE = "app", "shop"

_NOBODY = "nobody"
_LINE = re.compile(r"(?P<pid>\d+)@(?P<database>\S*) LOG:  (?:statement|execute [^:]+): (?P<text>.*)")
_GENERAL = re.compile(r"\s*(?:\d{6}\s+[\d:]+)?\s*(?P<pid>\d+) (?P<command>Query|Execute)\t(?P<text>.*)")


@dataclass(frozen=True)
class Logged:
    """A statement that a server was asked for, over one of its connections."""

    connection: int
    text: str


@dataclass
class Server:
    """A running database server, and the log of all that it is asked."""

    port: int
    log: Path
    kind: str

    def logged(self) -> list[Logged]:
        """Every statement so far, in the order in which the server got them."""
        pattern = _LINE if self.kind == "postgresql" else _GENERAL
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            match = pattern.match(line)
            if match and match.groupdict().get("database", DATABASE) == DATABASE:
                found.append(Logged(int(match["pid"]), match["text"]))
        return found

    def dsn(self, driver: str) -> str:
        """How a Go driver names this server's database."""
        if driver == "mysql":
            return f"{USER}@tcp(127.0.0.1:{self.port})/{DATABASE}"
        return f"postgres://{USER}@127.0.0.1:{self.port}/{DATABASE}?sslmode=disable"


@contextmanager
def postgresql() -> Iterator[Server]:
    """Run a PostgreSQL that logs every statement."""
    commands = max(Path("/usr/lib/postgresql").glob("*/bin"))
    with _folder() as folder, ExitStack() as stack:
        data, log, port = folder / "data", folder / "log", _free_port()
        _run([commands / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"])
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "max_connections": 100,
            "log_statement": "all",
            "log_line_prefix": "%p@%d ",
            "lc_messages": "C",
        }
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        stack.enter_context(_running([commands / "postgres", "-D", data, *options], log))
        asked = [str(commands / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        eventually(lambda: subprocess.run(asked).returncode == 0, "PostgreSQL takes connections")
        _run([commands / "createdb", "-h", "127.0.0.1", "-p", port, "-U", USER, DATABASE])
        yield Server(port, log, "postgresql")


@contextmanager
def mariadb() -> Iterator[Server]:
    """Run a MariaDB that logs every query."""
    with _folder() as folder, ExitStack() as stack:
        data, log, port, start = folder / "data", folder / "log", _free_port(), folder / "start.sql"
        start.write_text(
            f"CREATE DATABASE IF NOT EXISTS {DATABASE};\nDELETE FROM mysql.global_priv WHERE user = '';\n"
            f"FLUSH PRIVILEGES;\nCREATE OR REPLACE USER {USER};\nGRANT ALL ON *.* TO {USER};\n"
        )
        start.chmod(0o644)
        _run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
            ]
        )
        command = [
            shutil.which("mariadbd") or "/usr/sbin/mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={folder / 'socket'}",
            "--bind-address=127.0.0.1",
            f"--port={port}",
            "--general-log=1",
            f"--general-log-file={log}",
            f"--init-file={start}",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
            f"--pid-file={folder / 'pid'}",
        ]
        stack.enter_context(_running(command, folder / "messages"))
        _wait_for(port)
        yield Server(port, log, "mysql")


def _start(command: Sequence[object], output: int | IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(part) for part in command],
        user=_NOBODY,
        group="nogroup",
        extra_groups=[],
        cwd="/",
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(command: Sequence[object]) -> None:
    with _start(command, subprocess.PIPE) as process:
        said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command[0]}: {said}")


@contextmanager
def _running(command: Sequence[object], output: Path) -> Iterator[None]:
    with output.open("w") as file:
        process = _start(command, file)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gospan-database-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        shutil.chown(folder, _NOBODY, "nogroup")
        yield folder


def _free_port() -> int:
    with create_server(("127.0.0.1", 0)) as reserved:
        port: int = reserved.getsockname()[1]
    return port


def _wait_for(port: int) -> None:
    def listens() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    eventually(listens, f"a database server on port {port}")
