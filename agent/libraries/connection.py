"""What tells the addresses of a connection (bpf/connection.h)."""

from __future__ import annotations

TCP_CONNECTION = (
    "net.conn.fd",
    "net.netFD.laddr",
    "net.netFD.raddr",
    "net.TCPAddr.IP",
    "net.TCPAddr.Port",
    "*net.TCPConn as net.Conn",
    "*net.TCPAddr as net.Addr",
)
"""Fields, and itabs. What TLS connections need besides is not among them, as many programs have none."""
