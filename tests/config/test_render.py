"""What is written about the settings agrees with the settings."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from agent.config import Rule, Selector, load
from agent.config.render import default_file, show, update_document
from agent.config.settings import settings

ROOT = Path(__file__).parents[2]


def test_installed_file_is_up_to_date() -> None:
    """Otherwise: python -m agent.config.render systemd/config.toml docs/configuration.md."""
    assert (ROOT / "systemd/config.toml").read_text() == default_file()


def test_reference_is_up_to_date() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    assert update_document(text) == text
    for setting in settings():
        assert f"| `{setting.name}` |" in text


def test_default_file_gives_the_defaults_with_and_without_its_comment_signs(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(default_file())
    path.chmod(0o600)
    assert load([path]).places == {}
    path.write_text(
        "\n".join(
            line[1:] if line[1:2].islower() and line[0] == "#" else line
            for line in default_file().splitlines()
        )
    )
    config = load([path])
    assert set(config.places) == {setting.path for setting in settings()}
    for section in (
        "export",
        "discovery",
        "kernel",
        "libraries",
        "offsets",
        "sampler",
        "resource",
        "log",
        "status",
    ):
        assert getattr(config, section) == getattr(load(), section)


def test_show_hides_secrets_and_names_sources(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[export]\nheaders = { api-key = "hunter2" }\n[[discovery.include]]\nexe = "/a\\"b"\n')
    path.chmod(0o600)
    text = show(load([path], {"OTEL_BSP_SCHEDULE_DELAY": "1500"}))
    assert "hunter2" not in text
    assert f'headers = {{ "api-key" = "***" }}  # {path}:2' in text
    assert 'schedule_delay = "1.5s"  # OTEL_BSP_SCHEDULE_DELAY' in text
    assert 'endpoint = "http://localhost:4317"  # default' in text
    assert 'include = [{ exe = "/a\\"b" }]' in text


def test_shown_configuration_can_be_read_back(tmp_path: Path) -> None:
    config = load(flags={"export.timeout": "150ms", "resource.attributes": 'a=%22,b=\x7f"'})
    path = tmp_path / "config.toml"
    path.write_text(show(config))
    again = load([path])
    assert again.export == config.export
    assert again.resource == config.resource


def test_examples_of_selectors_in_the_reference_are_right(tmp_path: Path) -> None:
    text = (ROOT / "docs/configuration.md").read_text().partition("## Selectors and rules")[2]
    path = tmp_path / "config.toml"
    path.write_text(text.partition("```toml\n")[2].partition("```")[0])
    discovery = load([path]).discovery
    assert (len(discovery.exclude), len(discovery.rules)) == (1, 2)
    for kind, cls in (("selector", Selector), ("rule", Rule)):
        for one in fields(cls):
            assert f"`{one.name}`" in text, f"the key {one.name} of a {kind}"
