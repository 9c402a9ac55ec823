"""The programs that `gospan offsets build` compiles: one for each module whose types the agent reads, in a directory.

A program is compiled with every version of its module and never run. It needs to make the wanted types reachable, so
that the linker keeps what describes them; types that a package keeps to itself come along with the functions that use
them. More than is wanted today is welcome: what was read from a build is kept, and a field that is wanted later then
needs no new build.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from agent.offsets.versions import STANDARD_LIBRARY

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program, the module whose types it makes reachable, and the oldest version of it that is supported."""

    module: str
    since: str

    @property
    def directory(self) -> Path:
        """Where its Go files are: the module's path, with `_` for `/`."""
        return _HERE / self.module.replace("/", "_")

    @property
    def released(self) -> list[str]:
        """Releases that are known of besides those that a proxy lists, which are those that somebody asked it for.

        They are the tags of the module's repository, in the file `released`, one minor version a line.
        """
        path = self.directory / "released"
        return path.read_text().split() if path.exists() else []

    @property
    def sources(self) -> dict[str, bytes]:
        """Its Go files, by name."""
        return {path.name: path.read_bytes() for path in sorted(self.directory.glob("*.go"))}

    @property
    def digest(self) -> str:
        """Something that changes whenever its sources do."""
        digest = hashlib.sha256()
        for name, source in self.sources.items():
            digest.update(f"{name} {len(source)}\n".encode() + source)
        return digest.hexdigest()[:16]


PROGRAMS = (
    Program(module=STANDARD_LIBRARY, since="1.19"),
    Program(module="github.com/gin-gonic/gin", since="v1.5.0"),
    Program(module="golang.org/x/net", since="v0.1.0"),
    Program(module="google.golang.org/grpc", since="v1.14.0"),
    Program(module="github.com/segmentio/kafka-go", since="v0.4.1"),
    Program(module="github.com/gorilla/mux", since="v1.4.0"),
    Program(module="github.com/go-chi/chi", since="v1.5.0"),
    Program(module="github.com/go-chi/chi/v5", since="v5.0.0"),
    Program(module="github.com/labstack/echo", since="v3.0.0"),
    Program(module="github.com/labstack/echo/v4", since="v4.0.0"),
    Program(module="github.com/labstack/echo/v5", since="v5.0.0"),
    Program(module="github.com/jackc/pgx/v5", since="v5.0.0"),
    Program(module="github.com/jackc/pgx/v4", since="v4.0.0"),
    Program(module="github.com/jackc/pgconn", since="v1.0.0"),
    Program(module="github.com/lib/pq", since="v1.0.0"),
    Program(module="github.com/go-sql-driver/mysql", since="v1.4.0"),
    Program(module="github.com/microsoft/go-mssqldb", since="v0.15.0"),
    Program(module="github.com/ClickHouse/clickhouse-go/v2", since="v2.3.0"),
)
