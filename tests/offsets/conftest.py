from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.cli import main
from agent.offsets.trust import load_private_key, sign
from tests.support.authority import Authority, make_authority, make_signing_key


def table_of(date: str, **members: object) -> bytes:
    """A small table of a date such as 2030-01-01."""
    return json.dumps({"schema": 1, "generated": f"{date}T00:00:00Z", "modules": {}} | members).encode()


@dataclass(frozen=True)
class Site:
    """A place to install tables in, with the key that is trusted there."""

    root: Path
    private: Path
    public: Path

    @property
    def settings(self) -> list[str]:
        """Flags of the command line."""
        return [
            "--config",
            "/dev/null",
            "--set",
            f"offsets.directory={self.root}",
            "--set",
            f"offsets.update.public_key={self.public}",
        ]

    @property
    def active(self) -> Path:
        return self.root / "active" / "offsets.json"

    def write(self, path: Path, table: bytes) -> Path:
        """Write a table with its signature beside it."""
        path.write_bytes(table)
        path.with_name(f"{path.name}.sig").write_bytes(sign(table, [load_private_key(self.private)]))
        return path


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    def failed(self, words: str) -> bool:
        """Whether it failed with one line that contains these words."""
        return self.status == 1 and not self.out and self.err.count("\n") == 1 and words in self.err


Offsets = Callable[..., Ended]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    private, public = make_signing_key(tmp_path, "site")
    return Site(tmp_path / "installed", private, public)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def offsets(site: Site, capfd: pytest.CaptureFixture[str]) -> Offsets:
    """Run `gospan offsets WORDS` in this process, with the site's settings."""

    def run(*words: object) -> Ended:
        capfd.readouterr()
        status = main(["offsets", *map(str, words), *site.settings])
        return Ended(status, *capfd.readouterr())

    return run
