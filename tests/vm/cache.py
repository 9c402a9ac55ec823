"""What was downloaded, kept outside the tree so that every checkout and every run finds it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def directory(kind: str) -> Path:
    """Where things of a kind ("kernels") are kept: $XDG_CACHE_HOME/gospan/<kind>, by default in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "gospan" / kind


@contextmanager
def filling(home: Path) -> Iterator[Path]:
    """An empty directory that becomes `home`, in one step, if the block ends well, and vanishes otherwise.

    Where another process has made `home` in the meantime, that one stays.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".new-") as scratch:
        root = Path(scratch) / home.name
        root.mkdir()
        yield root
        try:
            root.rename(home)
        except OSError:
            if not home.exists():
                raise
