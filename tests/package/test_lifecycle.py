"""Installed, started, reloaded, upgraded and purged, under the systemd of each Debian, in namespaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.package import namespace
from tests.package.images import debian
from tests.support.golang import build
from tests.vm.guest import PROJECT, Result

pytestmark = pytest.mark.kernel

SUITES = ("bookworm", "trixie")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="session")
def command(debs: Sequence[Path]) -> list[str]:
    return [
        *("/usr/bin/python3", "-m", "tests.package.lifecycle"),
        *map(str, debs),
        str(build("http_server")),
    ]


@pytest.fixture(scope="session")
def environment(libraries: Path) -> dict[str, str]:
    """The tests' own libraries are those of the package, which serve every Python."""
    return {
        "PATH": _PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{PROJECT}:{libraries}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def passed(result: Result) -> None:
    print(result.output)  # noqa: T201 -- pytest shows it where the test fails, or with -s
    assert result.exit_status == 0, f"{result.output}\n{result.problem}\nsee {result.directory}"


@pytest.mark.parametrize("suite", SUITES)
def test_in_namespaces(suite: str, command: list[str], environment: dict[str, str]) -> None:
    passed(
        namespace.run(
            debian(suite),
            command,
            name=f"package-{suite}-namespaces",
            cwd=PROJECT,
            env=environment,
            visible=[PROJECT],
            timeout=300,
        )
    )
