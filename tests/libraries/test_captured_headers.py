"""The headers that the configuration names, in the spans of servers and clients: exchange by exchange."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agent.spans.captured_headers import CUT
from tests.support.daemon import Daemon, eventually, running
from tests.support.golang import NEWEST, VERSIONS, build

pytestmark = pytest.mark.kernel

MODES = ("http1", "h2", "h2c")
PADS = [f"x-pad-{number}" for number in range(14)]
REQUEST = "Authorization,x-tenant,X-TRACE-ID,x-long,x-text,x-internal-key,referer,x-missing," + ",".join(PADS)
RESPONSE = "set-cookie,x-served-by,location,x-late,etag"
SETTINGS = (
    f"http.request_headers={REQUEST}",
    f"http.response_headers={RESPONSE}",
    "http.redact_headers=x-Internal-*",
)


@dataclass
class Exchange:
    """What is sent and answered, and what the spans of both sides have of it."""

    path: str
    request: dict[str, list[str]] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)
    answered: dict[str, list[str]] = field(default_factory=dict)

    def line(self, mode: str) -> str:
        return json.dumps(
            {"mode": mode, "path": f"/{mode}{self.path}", "request": self.request, **self.answer}
        )


EXCHANGES = [
    Exchange("/none"),
    Exchange(
        "/some",
        {"X-Tenant": ["blue"], "X-Unwanted": ["no"], "X-Trace-Id": [""], "X-Trace-Ix": ["no"]},
        {"response": {"X-Served-By": ["one"], "X-Other": ["no"]}},
        {"x-tenant": ["blue"], "x-trace-id": [""]},
        {"x-served-by": ["one"]},
    ),
    Exchange(
        "/secrets",
        {"Authorization": ["Bearer hunter2"], "X-Internal-Key": ["hunter2", "hunter3"]},
        {"response": {"Set-Cookie": ["a=hunter2", "b=hunter3"]}, "status": 204},
        {"authorization": ["REDACTED"], "x-internal-key": ["REDACTED", "REDACTED"]},
        {"set-cookie": ["REDACTED", "REDACTED"]},
    ),
    Exchange(
        "/several-lines",
        {"X-Tenant": ["a", "b, c", "d", "e", "f"]},
        {"response": {"X-Served-By": ["one", "two"]}, "size": 10},
        {"x-tenant": ["a", "b, c", "d", "e"]},
        {"x-served-by": ["one", "two"]},
    ),
    Exchange(
        "/long",
        {"X-Long": ["l" * 300], "X-Tenant": ["t" * 256], "X-Text": ["a" + "é" * 200]},
        {"response": {"Etag": ["e" * 257]}, "size": 100_000},
        {"x-long": ["l" * 256 + CUT], "x-tenant": ["t" * 256], "x-text": ["a" + "é" * 127 + CUT]},
        {"etag": ["e" * 256 + CUT]},
    ),
    Exchange(
        "/urls?sig=hunter2&a=1",
        {"Referer": ["http://me:hunter2@example.com/?sig=hunter2"]},
        {"response": {"Location": ["/next?Signature=hunter2&b=2"]}, "status": 201},
        {"referer": ["http://REDACTED:REDACTED@example.com/?sig=REDACTED"]},
        {"location": ["/next?Signature=REDACTED&b=2"]},
    ),
    Exchange(
        "/among-many",
        {f"X-Filler-{number}": [str(number)] for number in range(100)} | {"X-Tenant": ["blue"]},
        {
            "response": {f"X-Filler-{number}": [str(number)] for number in range(100)}
            | {"Etag": ["1"], "X-Served-By": ["one"]}
        },
        {"x-tenant": ["blue"]},
        {"etag": ["1"], "x-served-by": ["one"]},
    ),
    Exchange(
        "/as-the-program-writes-it",
        {"x-tEnAnT": ["blue"]},
        {"response": {"x-served-by": ["one"]}},
        {"x-tenant": ["blue"]},
        {"x-served-by": ["one"]},
    ),
    # What is set when the header has been written is not a part of it, or a trailer.
    Exchange(
        "/late-after-status",
        {},
        {
            "response": {"X-Served-By": ["one"]},
            "status": 200,
            "late": {"X-Late": ["no"], "X-Served-By": ["no"]},
        },
        {},
        {"x-served-by": ["one"]},
    ),
    Exchange(
        "/late-after-flush",
        {},
        {"size": 10, "flush": True, "late": {"X-Served-By": ["no"], "X-Late": ["no"]}},
    ),
    Exchange(
        "/late-after-body",
        {},
        {"response": {"Etag": ["1"]}, "size": 100_000, "late": {"X-Late": ["no"]}},
        {},
        {"etag": ["1"]},
    ),
    Exchange("/in-time", {}, {"late": {"X-Late": ["no"]}}, {}, {"x-late": ["no"]}),
]
PANIC = Exchange(
    "/panic", {"X-Tenant": ["blue"]}, {"response": {"Etag": ["1"]}, "panic": True}, {"x-tenant": ["blue"]}
)
CROWDED = Exchange("/crowded", {name: [name[-1] * 250] for name in PADS})
# A Swiss map of several tables; more groups than are looked at. Go 1.27 answers 431, without a handler.
TABLES = Exchange("/tables", {f"X-Filler-{number}": ["no"] for number in range(950)} | {"X-Tenant": ["blue"]})


@contextmanager
def exchanging(go: str) -> Iterator[subprocess.Popen[str]]:
    program = build("http_headers", go=go)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def exchange(process: subprocess.Popen[str], one: Exchange, mode: str) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(one.line(mode) + "\n")
    process.stdin.flush()
    answered: dict[str, Any] = json.loads(process.stdout.readline())
    return answered


def spans_by_path(daemon: Daemon, pid: int) -> dict[tuple[str, int], Span]:
    found: dict[tuple[str, int], Span] = {}
    for span in daemon.spans_of(pid):
        texts = {one.key: one.value.string_value for one in span.attributes}
        path = texts.get("url.path") or "/" + texts["url.full"].split("/", 3)[3].partition("?")[0]
        assert (path, span.kind) not in found
        found[path, span.kind] = span
    return found


def headers(span: Span, message: str) -> dict[str, list[str]]:
    prefix = f"http.{message}.header."
    names = [one.key for one in span.attributes]
    assert len(set(names)) == len(names)
    return {
        one.key.removeprefix(prefix): [item.string_value for item in one.value.array_value.values]
        for one in span.attributes
        if one.key.startswith(prefix)
    }


@pytest.mark.parametrize("go", [VERSIONS[0], "1.24.13", NEWEST])
def test_every_exchange(go: str) -> None:
    with running(*SETTINGS) as daemon, exchanging(go) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["pid"]
        eventually(lambda: daemon.traces(str(build("http_headers", go=go))), "the program is traced")
        for mode in MODES:
            for one in (*EXCHANGES, PANIC, CROWDED):
                status = exchange(process, one, mode)["status"]
                assert status == (0 if one is PANIC else one.answer.get("status", 200)), (mode, one.path)
        handled = [exchange(process, TABLES, mode)["status"] == 200 for mode in MODES]
        count = len(MODES) * (2 * len(EXCHANGES) + 2 + 2 + 1) + sum(handled)
        eventually(lambda: len(daemon.spans_of(pid)) >= count, f"{count} spans")
        kernel = daemon.stop()["kernel"]
        spans = spans_by_path(daemon, pid)

    for mode in MODES:
        for one in (*EXCHANGES, PANIC):
            for kind in (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT):
                span = spans[f"/{mode}{one.path.partition('?')[0]}", kind]
                assert headers(span, "request") == one.shown, (mode, one.path, kind)
                assert headers(span, "response") == one.answered, (mode, one.path, kind)
                assert b"hunter" not in span.SerializeToString()
        for kind in (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT):
            crowded = headers(spans[f"/{mode}/crowded", kind], "request")
            assert 5 <= len(crowded) < len(PADS)
            assert all(CROWDED.request[name] == value for name, value in crowded.items())
            tables = spans.get((f"/{mode}/tables", kind))
            assert tables is None or headers(tables, "request") in ({"x-tenant": ["blue"]}, {})
    assert kernel["header_lines_left_out"] >= 2 * len(MODES)
    assert kernel["headers_unread"] >= len(MODES)
    assert kernel["texts_cut"] >= 3 * 2 * len(MODES)
