"""What the daemon must not bring along before it is needed: its memory is budgeted (docs/performance.md)."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["grpc", "urllib3", "prometheus_client", "cryptography", "psutil"])
def test_the_daemon_imports_late(module: str) -> None:
    code = f"import sys, agent.start; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
