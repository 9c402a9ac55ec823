"""Lists of headers: what can be named, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import load
from tests.config.files import complaint, write


def test_names_are_in_lower_case_and_once(tmp_path: Path) -> None:
    config = load(
        [write(tmp_path / "c.toml", '[http]\nrequest_headers = ["X-Tenant", "x-tenant", "Accept"]\n')]
    )
    assert config.http.request_headers == ("x-tenant", "accept")
    assert load([], {"GOSPAN_HTTP_RESPONSE_HEADERS": "ETag, Age"}).http.response_headers == ("etag", "age")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ('["x-*"]', "'x-*' is a pattern: headers are named one by one, so that none comes along by chance"),
        ('["x tenant"]', "'x tenant' isn't a header's name (letters, digits, - _ .)"),
        (f'["{"x" * 49}"]', f"'{'x' * 49}' is too long: names may have 48 characters"),
        (str([f"x-{n}" for n in range(33)]).replace("'", '"'), "names 33 headers; 32 are possible"),
    ],
)
def test_mistakes(tmp_path: Path, names: str, problem: str) -> None:
    assert (
        complaint(tmp_path, f"[http]\nrequest_headers = {names}\n") == f":2: http.request_headers {problem}"
    )


def test_rules_name_only_so_many(tmp_path: Path) -> None:
    rule = f'[[discovery.rules]]\nexe = "/a"\nrequest_headers = {[f"x-{n}" for n in range(31)]}\n'
    assert "name 248 headers in all; 240 are possible" in complaint(tmp_path, rule * 8)
    assert len(load([write(tmp_path / "d.toml", rule * 7)]).discovery.rules) == 7
