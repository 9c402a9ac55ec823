"""What error.type says of Go errors."""

from __future__ import annotations

import errno

import pytest

from agent.spans.go_error import GoError


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            GoError("*net.OpError", "*os.SyscallError", "", errno.ECONNREFUSED),
            "connection_refused",
            "connection refused",
        ),
        (GoError("*net.OpError", "*os.SyscallError", "", errno.EXDEV), "EXDEV", "invalid cross-device link"),
        (GoError("*net.OpError", "*os.SyscallError", "", 4000), "_OTHER", "unknown error 4000"),
        (GoError("*net.OpError", "*net.DNSError", "", 0), "name_not_resolved", "*net.DNSError"),
        (
            GoError("*net.OpError", "net.UnknownNetworkError", "", 0),
            "net.UnknownNetworkError",
            "net.UnknownNetworkError",
        ),
        (GoError("*net.OpError", "", "", 0), "*net.OpError", "*net.OpError"),
        (GoError("context.deadlineExceededError", "", "", 0), "timeout", "context.deadlineExceededError"),
        (GoError("*errors.errorString", "", "context canceled", 0), "canceled", "context canceled"),
        (
            GoError("*errors.errorString", "", "no such thing as alice@example.com", 0),
            "*errors.errorString",
            "*errors.errorString",
        ),
        (GoError("*main.myError", "", "", 0), "*main.myError", "*main.myError"),
        (GoError("", "", "", 0), "_OTHER", ""),
    ],
)
def test_kind_and_message(error: GoError, kind: str, message: str) -> None:
    assert (error.kind, error.message) == (kind, message)
