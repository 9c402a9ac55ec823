"""What error.type says of a Go error: a word of its own where the cause is known, else the type as %T prints it.

The words have low cardinality, and are the same whichever of Go's many types an error of that cause has.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

OTHER = "_OTHER"
"""error.type where nothing better is known (OpenTelemetry conventions)."""

_SYSTEM = {
    errno.ECONNREFUSED: "connection_refused",
    errno.ECONNRESET: "connection_reset",
    errno.ECONNABORTED: "connection_aborted",
    errno.EPIPE: "broken_pipe",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "host_unreachable",
    errno.ENETUNREACH: "network_unreachable",
    errno.EADDRNOTAVAIL: "address_not_available",
    errno.EMFILE: "too_many_open_files",
    errno.ENFILE: "too_many_open_files",
}

_TYPES = {
    "context.deadlineExceededError": "timeout",
    "context.DeadlineExceededError": "timeout",
    "*http.httpError": "timeout",  # net/http/transport.go up to Go 1.20: made for timeouts only
    "*http.timeoutError": "timeout",
    "http.tlsHandshakeTimeoutError": "timeout",
    "*http.tlsHandshakeTimeoutError": "timeout",
    "*http.http2httpError": "timeout",
    "*http.http2timeoutError": "timeout",
    "*http2.httpError": "timeout",
    "*http2.timeoutError": "timeout",
    "*net.timeoutError": "timeout",
    "net.timeoutError": "timeout",
    "*poll.DeadlineExceededError": "timeout",
    "*net.canceledError": "canceled",
    "net.canceledError": "canceled",
    "*net.DNSError": "name_not_resolved",
    "*tls.CertificateVerificationError": "server_certificate_invalid",
    "x509.UnknownAuthorityError": "server_certificate_invalid",
    "x509.HostnameError": "server_certificate_invalid",
    "x509.CertificateInvalidError": "server_certificate_invalid",
    "tls.alert": "tls_alert",
    "tls.AlertError": "tls_alert",
}

_TEXTS = {
    "context canceled": "canceled",
    "net/http: request canceled": "canceled",
    "net/http: request canceled while waiting for connection": "canceled",
    "operation was canceled": "canceled",
    "EOF": "connection_closed",
    "unexpected EOF": "connection_closed",
    "http: server closed idle connection": "connection_closed",
    "driver: bad connection": "bad_connection",
    "invalid connection": "bad_connection",
    "sql: connection is already closed": "connection_closed",
    "sql: database is closed": "database_closed",
    "sql: statement is closed": "statement_closed",
    "conn closed": "connection_closed",
    "use of closed network connection": "connection_closed",
}


class GoError(NamedTuple):
    """An error: the type, that of what is in a *net.OpError, the text of an *errors.errorString, and the errno that it
    came to; "" and 0 where there is none.
    """

    type: str
    cause: str
    text: str
    number: int

    @property
    def kind(self) -> str:
        """The value of error.type."""
        if self.number:
            return _SYSTEM.get(self.number) or errno.errorcode.get(self.number, OTHER)
        known = _TYPES.get(self.cause) or _TYPES.get(self.type) or _TEXTS.get(self.text)
        return known or self.cause or self.type or OTHER

    @property
    def message(self) -> str:
        """What went wrong, in words that hold nothing of the request."""
        if self.number:
            return os.strerror(self.number).lower()
        return self.text if self.text in _TEXTS else self.cause or self.type
