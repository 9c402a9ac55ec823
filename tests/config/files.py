"""Configuration files of tests, and what is complained of in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import (
    ConfigError,
    load,
)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def complaints(
    paths: list[Path], environ: dict[str, str] | None = None, flags: dict[str, str] | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(paths, environ, flags)
    return str(raised.value).splitlines()


def complaint(tmp_path: Path, text: str) -> str:
    path = write(tmp_path / "config.toml", text)
    (only,) = complaints([path])
    assert only.startswith(str(path))
    return only.removeprefix(str(path))
