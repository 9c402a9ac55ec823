"""The parts of packaging that need neither packages nor a Debian."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from agent.log import Event
from package import roff
from package.libraries import MergeError, merge
from package.tree import PROJECT


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_wheels_of_two_pythons_share_a_directory(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", {"grpc/a.py": "a", "grpc/c.cpython-311.so": "1"})
    other = tree(tmp_path / "other", {"grpc/a.py": "a", "grpc/c.cpython-313.so": "2"})
    merge(other, one)
    assert sorted(os.listdir(one / "grpc")) == ["a.py", "c.cpython-311.so", "c.cpython-313.so"]  # noqa: PTH208


def test_wheels_that_differ_do_not(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", {"grpc/a.py": "a"})
    other = tree(tmp_path / "other", {"grpc/a.py": "b"})
    with pytest.raises(MergeError, match=re.escape("grpc/a.py differs from one Python to the other")):
        merge(other, one)


def test_text_is_what_roff_reads_back() -> None:
    assert roff.escaped(".B a\\b --c\n'd") == "\\&.B a\\eb \\-\\-c\n\\&'d"
    assert roff.marked("use `--set`") == "use \\fB\\-\\-set\\fR"


def test_catalog_explains_every_event() -> None:
    """journalctl -x has something to say of each message with an id."""
    text = (PROJECT / "systemd/gospan.catalog").read_text()
    entries = re.split(r"(?m)^-- (?=[0-9a-f]{32}$)", text)[1:]
    assert [entry[:32] for entry in entries] == [event.value for event in Event]
    for entry in entries:
        head, _, body = entry.partition("\n\n")
        assert re.search(r"(?m)^Subject: \S", head)
        assert body.strip()
