"""Where there is no PostgreSQL: a server that speaks as much of its protocol as it takes to refuse every query."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_UNDEFINED_TABLE = "42P01"
_READY = b"Z\0\0\0\5I"
_AUTHENTICATED = b"R\0\0\0\x08\0\0\0\0"


@contextmanager
def postgresql() -> Iterator[int]:
    """Run one on loopback until the block ends; gives its port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Refusing) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class _Refusing(socketserver.StreamRequestHandler):
    """One connection (PostgreSQL's documentation, "Message Formats")."""

    def handle(self) -> None:
        (length,) = struct.unpack("!I", self.rfile.read(4))
        self.rfile.read(length - 4)
        self.wfile.write(_AUTHENTICATED + _READY)
        while kind := self.rfile.read(1):
            (length,) = struct.unpack("!I", self.rfile.read(4))
            self.rfile.read(length - 4)
            if kind in b"PQ":
                self.wfile.write(_error())
            if kind in b"QS":
                self.wfile.write(_READY)


def _error() -> bytes:
    fields = (f"{name}{text}\0" for name, text in (("S", "ERROR"), ("C", _UNDEFINED_TABLE), ("M", "refused")))
    body = "".join(fields).encode() + b"\0"
    return b"E" + struct.pack("!I", 4 + len(body)) + body
