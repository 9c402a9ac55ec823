"""A running agent takes a new table, and attaches anew only where that says something else."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

import pytest

from agent.log import Event
from tests.offsets.conftest import Offsets, Site
from tests.support.daemon import attributes, eventually, running
from tests.support.golang import REPOSITORY, build
from tests.support.http import Server, serving

pytestmark = pytest.mark.kernel

FIELD = "net/http.response.status"
ATTRIBUTE = "http.response.status_code"


def table(date: str, *, with_field: bool) -> bytes:
    """The repository's table with another date, and perhaps without a field."""
    document = json.loads((REPOSITORY / "offsets.json").read_text())
    document["generated"] = f"{date}T00:00:00Z"
    if not with_field:
        del document["modules"]["std"]["offsets"][FIELD]
    return json.dumps(document).encode()


def without_type_information(program: Path) -> None:
    """Give the type of FIELD another name, so that only a table can tell where the field is."""
    data = program.read_bytes()
    # A name, with its length before it (internal/abi, Name).
    name = b"\x0e*http.response"
    assert name in data
    program.write_bytes(data.replace(name, b"\x0e*http.respxnse"))


def get(server: Server) -> None:
    urllib.request.urlopen(f"http://127.0.0.1:{server.port('http1')}/items/7", timeout=20).read()


def test_a_new_table_is_taken_without_a_restart(site: Site, offsets: Offsets, tmp_path: Path) -> None:
    lacking, whole = tmp_path / "lacking", tmp_path / "whole"
    for program in (lacking, whole):
        shutil.copy(build("http_server"), program)
    without_type_information(lacking)
    first = site.write(tmp_path / "first.json", table("2090-01-01", with_field=False))
    second = site.write(tmp_path / "second.json", table("2090-02-02", with_field=True))
    assert offsets("update", "--from-file", first).status == 0
    settings = [word for word in site.settings if "=" in word]
    with (
        serving(lacking) as one,
        serving(whole) as other,
        running("discovery.scan_interval=100ms", *settings) as daemon,
    ):
        for program in (lacking, whole):
            eventually(lambda program=program: daemon.traces(str(program)), "both are traced")  # type: ignore[misc]
        for server in (one, other):
            get(server)
            eventually(lambda server=server: len(daemon.spans_of(server.pid)) == 1, "the first spans")  # type: ignore[misc]
        assert ATTRIBUTE not in attributes(daemon.spans_of(one.pid)[0])
        assert ATTRIBUTE in attributes(daemon.spans_of(other.pid)[0])

        assert offsets("update", "--from-file", second).status == 0
        eventually(lambda: daemon.said(f"the offset table is {site.active} now"), "the new table")
        message = next(one for one in daemon.messages if "the offset table is" in one["message"])
        assert message["attached_anew"] == 1
        assert message["message_id"] == Event.OFFSETS_UPDATED.value
        assert message["generated"] == "2090-02-02T00:00:00Z"
        get(one)
        eventually(lambda: len(daemon.spans_of(one.pid)) == 2, "a span after it")
        assert attributes(daemon.spans_of(one.pid)[1])[ATTRIBUTE] == 200
        detached = [one["exe"] for one in daemon.messages if one["message"].startswith("no longer tracing")]
        assert detached == [str(lacking)]

        assert offsets("rollback").status == 0
        eventually(
            lambda: sum("the offset table is" in one["message"] for one in daemon.messages) == 2, "back"
        )
        get(one)
        eventually(lambda: len(daemon.spans_of(one.pid)) == 3, "a span after that")
        assert ATTRIBUTE not in attributes(daemon.spans_of(one.pid)[2])
        daemon.stop()
