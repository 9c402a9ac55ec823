"""Installed, started, reloaded, upgraded and purged, under the systemd of each Debian: in namespaces, and in a VM.

In namespaces it is the Debian's own systemd, dpkg and Python on this machine's kernel: all that a package's life needs.
In a virtual machine the kernel is the Debian's own as well, on which `make test-vm` tries the agent with each change.
With an emulated processor that takes many minutes, so it is done where GOSPAN_TEST_PACKAGE is "all", in fewer steps
(lifecycle.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.package import namespace
from tests.package.images import debian
from tests.support import grpc, kafka_go, sql
from tests.support.golang import build
from tests.vm import cache, guest, kernels
from tests.vm.guest import PROJECT, Result
from tests.vm.userland import Userland

pytestmark = pytest.mark.kernel

SUITES = {"bookworm": "6.1", "trixie": "6.12"}
"""Each Debian, and its kernel."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="session")
def command(debs: Sequence[Path]) -> list[str]:
    programs = {name: build(name) for name in ("http_server", "http_calls", "routers")}
    programs |= {"grpc": grpc.program(), "databases": sql.program(), "kafka_go": kafka_go.program()}
    return [
        *("/usr/bin/python3", "-m", "tests.package.lifecycle"),
        *map(str, debs),
        *(f"{name}={path}" for name, path in programs.items()),
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


if os.environ.get("GOSPAN_TEST_PACKAGE") == "all":

    @pytest.mark.parametrize("suite", SUITES)
    def test_in_a_virtual_machine(suite: str, command: list[str], environment: dict[str, str]) -> None:
        # What one guest has compiled of the tests and their libraries, the next one finds.
        compiled = cache.directory("pycache") / suite
        env = environment | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(compiled)}
        land = Userland(debian(suite), visible=(PROJECT,), writable=(compiled,), env=env)
        passed(
            guest.run(
                kernels.fetch(SUITES[suite]),
                command,
                systemd=True,
                land=land,
                results=guest.RESULTS / f"package-{suite}-machine",
                timeout=3000,
            )
        )
