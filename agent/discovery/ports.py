"""The TCP ports that a process listens on, as /proc shows them: its sockets, and those of its network namespace.

Not by psutil, which reads the sockets of its own namespace only: a container's server would have none.
"""

from __future__ import annotations

import os
from contextlib import suppress

_LISTEN = b"0A"
"""TCP_LISTEN (include/net/tcp_states.h), as /proc/PID/net/tcp writes it."""


def listening_ports(pid: int, procfs: str = "/proc") -> frozenset[int]:
    """Give the ports of IPv4 and IPv6 sockets that the process has open and listens on; none if it is gone."""
    ports: dict[bytes, int] = {}
    for table in ("tcp", "tcp6"):
        with suppress(OSError), open(f"{procfs}/{pid}/net/{table}", "rb") as file:  # noqa: PTH123 -- as below
            ports |= _listeners(file.read())
    if not ports:
        return frozenset()
    return frozenset(ports[inode] for inode in _sockets(pid, procfs) if inode in ports)


def _listeners(table: bytes) -> dict[bytes, int]:
    """Give the port of each listening socket by its inode: `sl local_address rem_address st ... inode` (proc(5))."""
    found: dict[bytes, int] = {}
    for line in table.splitlines()[1:]:
        words = line.split(None, 10)
        if len(words) > 9 and words[3] == _LISTEN:
            found[words[9]] = int(words[1].rpartition(b":")[2], 16)
    return found


def _sockets(pid: int, procfs: str) -> set[bytes]:
    """Give the inodes of the sockets that a process has open."""
    found: set[bytes] = set()
    directory = f"{procfs}/{pid}/fd"
    with suppress(OSError):
        for name in os.listdir(directory):  # noqa: PTH208 -- there may be thousands
            with suppress(OSError):
                link = os.fsencode(os.readlink(f"{directory}/{name}"))  # noqa: PTH115
                if link.startswith(b"socket:["):
                    found.add(link[8:-1])
    return found
