"""The spans of gRPC servers and clients, compared with what both wrote of each call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from agent.spans.rpc import CODES, SERVER_ERRORS
from tests.support.daemon import Daemon, attributes, eventually, running
from tests.support.grpc import RELEASES, Calls, Server, call, program, serving

pytestmark = pytest.mark.kernel

_GO_NAMES = {"Canceled": "CANCELLED", "OK": "OK"}
METHODS = ("Unary", "ServerStream", "ClientStream", "Both")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-{:016x}-01"


def name_of(code: str) -> str:
    """The conventions' name of a code that Go prints as CamelCase."""
    if code in _GO_NAMES:
        return _GO_NAMES[code]
    return (
        "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in code).lstrip("_").upper()
    )


def wanted_calls() -> list[dict[str, Any]]:
    """Every method with every status, with deadlines, cancellation, panics, and parents of the program's own."""
    calls: list[dict[str, Any]] = []
    for method in METHODS:
        calls += [{"method": method, "code": code, "messages": 3} for code in range(17)]
        calls += [
            {"method": method, "panic": True},
            {"method": method, "sleep": 400, "deadline": 100},
            {"method": method, "sleep": 400, "cancel": 100},
            {"method": method, "messages": 20},
        ]
    calls += [{"method": "Missing"}, {"method": "Unary", "sleep": 5}]
    calls += [{"method": "Unary", "code": 5, "wrap": wrap} for wrap in ("wrapped", "plain")]
    for number, one in enumerate(calls):
        one["id"] = f"call-{number}"
        if number % 3 == 0:
            one["send"] = PARENT.format(number + 1)
    return calls


def spans(daemon: Daemon, pid: int, kind: Span.SpanKind.ValueType) -> list[Span]:
    return [span for span in daemon.spans_of(pid) if span.kind == kind]


def in_order(found: Sequence[Span]) -> list[Span]:
    return sorted(found, key=lambda span: span.start_time_unix_nano)


def check_client(daemon: Daemon, calls: Calls, server: Server, wanted: Sequence[dict[str, Any]]) -> None:
    """One call after the other: the spans in the order of their beginning are the calls'."""
    found = in_order(spans(daemon, calls.pid, Span.SPAN_KIND_CLIENT))
    assert len(found) == len(calls.outcomes)
    host, _, port = server.address.rpartition(":")
    for one, outcome, span in zip(wanted, calls.outcomes, found, strict=True):
        has = attributes(span)
        # status.Code sees what is wrapped since grpc 1.55; the span always does.
        code = "NOT_FOUND" if one.get("wrap") == "wrapped" else name_of(outcome["code"])
        assert span.name == f"shapes.Shapes/{outcome['method']}", (outcome, has)
        assert has["rpc.system.name"] == "grpc"
        assert has["rpc.method"] == span.name
        assert has["rpc.response.status_code"] == code, (outcome, has)
        assert has["server.address"] == host
        assert has["server.port"] == int(port)
        assert has["network.peer.port"] == int(port), outcome
        assert (span.status.code == Status.STATUS_CODE_ERROR) == (code != "OK")
        assert has.get("error.type", "OK") == code
        assert outcome["start_ns"] <= span.start_time_unix_nano + 1_000_000
        assert span.end_time_unix_nano >= outcome["start_ns"]


def check_server(daemon: Daemon, server: Server, wanted: Sequence[dict[str, Any]]) -> None:
    found = in_order(spans(daemon, server.pid, Span.SPAN_KIND_SERVER))
    log = {one["id"]: one for one in server.calls()}
    assert len(found) == len(wanted)
    for one, span in zip(wanted, found, strict=True):
        has = attributes(span)
        if one["method"] == "Missing":
            assert span.name == "grpc"
            assert has["rpc.method"] == "_OTHER"
            assert has["rpc.method_original"] == "shapes.Shapes/Missing"
            assert has["rpc.response.status_code"] == "UNIMPLEMENTED"
            continue
        line = log[one["id"]]
        code = name_of(line["code"])
        assert span.name == line["method"].removeprefix("/") == has["rpc.method"]
        # What a handler gives back is not what is written, where the client has no use for it any more.
        if not {"deadline", "cancel"} & one.keys():
            assert has["rpc.response.status_code"] == code, (one, line, has)
        else:
            assert has["rpc.response.status_code"] in {code, "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL"}
        code = has["rpc.response.status_code"]
        assert f"{has['network.peer.address']}:{has['network.peer.port']}" == line["peer"]
        assert f"{has['server.address']}:{has['server.port']}" == server.address
        assert (span.status.code == Status.STATUS_CODE_ERROR) == (code in SERVER_ERRORS)
        if one.get("send"):
            _, trace_id, parent_id, _ = one["send"].split("-")
            assert span.trace_id.hex() == trace_id
            assert span.parent_span_id.hex() == parent_id
            assert span.flags == 0x301
        else:
            assert span.parent_span_id == b"", one


@pytest.mark.parametrize("release", RELEASES)
def test_every_kind_of_call_with_every_release(release: str, tmp_path: Path) -> None:
    path = program(release)
    wanted = wanted_calls()
    assert {one["code"] for one in wanted if "code" in one} == set(range(len(CODES)))
    with running() as daemon, serving(path, log=tmp_path / "log") as server:
        eventually(lambda: daemon.traces(str(path)), "the server is traced")
        calls = call(path, server.address, wanted)
        eventually(
            lambda: len(daemon.spans_of(server.pid) + daemon.spans_of(calls.pid)) >= 2 * len(wanted),
            f"{2 * len(wanted)} spans",
        )
        daemon.stop()
        check_server(daemon, server, wanted)
        check_client(daemon, calls, server, wanted)


@pytest.mark.parametrize("arguments", [("-tls",), ("-workers", "4"), ("-tls", "-http")], ids=" ".join)
def test_who_is_whose_child_with_many_calls_at_a_time(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """What a handler calls, with its context or without, and from a goroutine of its own, belongs to its span."""
    path = program()
    ways = ("context", "background", "goroutine")
    wanted: list[dict[str, Any]] = [
        {"method": METHODS[number % 4], "id": f"call-{number}", "nested": ways[number % 3], "messages": 2}
        | {"send": PARENT.format(number + 1)}
        for number in range(960)
    ]
    with running() as daemon, serving(path, *arguments, log=tmp_path / "log") as server:
        eventually(lambda: daemon.traces(str(path)), "the server is traced")
        tls = [one for one in arguments if one == "-tls"]
        calls = call(path, server.address, wanted, "-connections", "8", "-concurrency", "64", *tls)
        assert {one["code"] for one in calls.outcomes} == {"OK"}
        eventually(lambda: len(daemon.spans_of(server.pid)) >= 3 * len(wanted), "the server's spans")
        eventually(lambda: len(daemon.spans_of(calls.pid)) >= len(wanted), "the client's spans")
        last = daemon.stop()
    assert last["dropped"] == {}
    # Served through net/http as well, a call has one span.
    assert {span.name.partition("/")[0] for span in daemon.spans_of(server.pid)} == {"shapes.Shapes"}
    served = {span.span_id: span for span in spans(daemon, server.pid, Span.SPAN_KIND_SERVER)}
    outer = [span for span in served.values() if span.parent_span_id and span.flags == 0x301]
    assert {span.parent_span_id.hex() for span in outer} == {one["send"].split("-")[2] for one in wanted}
    made = spans(daemon, server.pid, Span.SPAN_KIND_CLIENT)
    assert len(made) == len(wanted)
    # Each outer call made one inner call, and no other call is anybody's parent.
    assert {span.parent_span_id for span in made} == {span.span_id for span in outer}
    assert all(span.trace_id == served[span.parent_span_id].trace_id for span in made)


def test_a_call_within_a_call(tmp_path: Path) -> None:
    """An interceptor that makes a call of its own: a child of the call that it is in, on the same goroutine."""
    path = program()
    with running("rpc.names=both") as daemon, serving(path, log=tmp_path / "log") as server:
        eventually(lambda: daemon.traces(str(path)), "the server is traced")
        wanted = [{"method": "Unary", "id": f"call-{number}", "wrap": "nested"} for number in range(20)]
        calls = call(path, server.address, wanted)
        eventually(lambda: len(daemon.spans_of(calls.pid)) >= 40, "two spans a call")
        daemon.stop()
        made = in_order(spans(daemon, calls.pid, Span.SPAN_KIND_CLIENT))
    outer, inner = made[::2], made[1::2]
    assert {attributes(span)["rpc.grpc.status_code"] for span in made} == {0}
    assert [span.parent_span_id for span in outer] == [b""] * 20
    assert [span.parent_span_id for span in inner] == [span.span_id for span in outer]
    assert all(
        span.end_time_unix_nano >= one.end_time_unix_nano for span, one in zip(outer, inner, strict=True)
    )


def test_retries_are_a_part_of_their_call(tmp_path: Path) -> None:
    """grpc tries a call again by itself: one span of the client, and one of the server for each time."""
    path = program()
    wanted = [
        {"method": method, "id": f"{method}-{attempts}", "messages": 2, "attempts": attempts}
        for method in METHODS
        for attempts in (1, 3, 4, 5)
    ]
    with running() as daemon, serving(path, log=tmp_path / "log") as server:
        eventually(lambda: daemon.traces(str(path)), "the server is traced")
        calls = call(path, server.address, wanted, "-retry")
        tries = len(METHODS) * (1 + 3 + 4 + 4)
        eventually(lambda: len(daemon.spans_of(calls.pid)) >= len(wanted), "a span a call")
        eventually(lambda: len(daemon.spans_of(server.pid)) >= tries, "a span a try")
        daemon.stop()
    made = in_order(spans(daemon, calls.pid, Span.SPAN_KIND_CLIENT))
    assert [(one["code"], span.name) for one, span in zip(calls.outcomes, made, strict=True)] == [
        ("Unavailable" if one["attempts"] == 5 else "OK", f"shapes.Shapes/{one['method']}") for one in wanted
    ]
    for one, span in zip(calls.outcomes, made, strict=True):
        assert attributes(span)["rpc.response.status_code"] == name_of(one["code"]), one
    served = spans(daemon, server.pid, Span.SPAN_KIND_SERVER)
    codes = [attributes(span)["rpc.response.status_code"] for span in served]
    assert (len(served), codes.count("OK")) == (tries, sum(one["code"] == "OK" for one in calls.outcomes))
