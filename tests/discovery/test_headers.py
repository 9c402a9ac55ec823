"""Which headers the spans of a process have."""

from __future__ import annotations

import pytest

from agent.config import Config, Discovery, Http, Rule
from agent.discovery.headers import SECRET_HEADERS, WantedHeaders, wanted_headers
from agent.discovery.selection import Selection
from tests.support.golang import REPOSITORY

GENERAL = Http(request_headers=("b", "a"), response_headers=("c",))


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (None, WantedHeaders(("a", "b"), ("c",))),
        (Rule(exe="/a"), WantedHeaders(("a", "b"), ("c",))),
        (Rule(exe="/a", request_headers=("d",)), WantedHeaders(("d",), ("c",))),
        (Rule(exe="/a", request_headers=(), response_headers=()), WantedHeaders()),
    ],
)
def test_a_list_of_a_rule_replaces_the_general_one(rule: Rule | None, wanted: WantedHeaders) -> None:
    assert wanted_headers(GENERAL, rule) == wanted
    assert bool(wanted_headers(GENERAL, rule)) == (wanted != WantedHeaders())


def test_secrets() -> None:
    http = Http(
        request_headers=("authorization", "x-internal-key", "x-tenant"),
        response_headers=("set-cookie", "x-tenant"),
        redact_headers=("X-Internal-*",),
    )
    assert wanted_headers(http, None).secret == {"authorization", "set-cookie", "x-internal-key"}


def test_the_reference_names_all_secrets() -> None:
    text = (REPOSITORY / "docs/configuration.md").read_text()
    assert [name for name in SECRET_HEADERS if f"`{name}`" not in text] == []


def test_a_process_has_those_of_its_rule() -> None:
    rule = Rule(exe="/b", request_headers=("d",))
    selection = Selection(Config(http=GENERAL, discovery=Discovery(rules=(rule,))))
    chosen = [selection.of_path(path) for path in ("/a", "/b")]
    assert [choice.headers.request for choice in chosen if choice] == [("a", "b"), ("d",)]
    assert len(selection.headers) == 2
