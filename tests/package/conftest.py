from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent import __version__
from agent.paths import architecture
from package import deb
from package.libraries import collect
from package.tree import BUILD, PROJECT, Release

if "GOSPAN_TEST_PACKAGE" not in os.environ:
    # Minutes, and Debians to install: a matter of `make test-package`.
    collect_ignore = ["test_deb.py", "test_lifecycle.py"]

EPOCH = 1_700_000_000


@pytest.fixture(scope="session")
def debs() -> tuple[Path, Path]:
    """The package of this checkout, and the same as a later version."""
    output = PROJECT / "build/package/test"
    arch = architecture()
    return (
        deb.build(Release(arch, __version__, EPOCH), output),
        deb.build(Release(arch, f"{__version__}+later", EPOCH), output),
    )


@pytest.fixture(scope="session")
def libraries() -> Path:
    return collect(PROJECT / "requirements.lock", architecture(), cache=BUILD / "packages")
