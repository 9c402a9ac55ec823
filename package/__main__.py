"""`python -m package deb|rpm`: make a package, and print its path."""

# ruff: noqa: T201 (a program for the terminal)

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from agent import __version__
from agent.paths import architecture
from package import deb, rpm
from package.libraries import MergeError
from package.tree import PROJECT, Release
from package.wheels import WheelError

_KINDS = {"deb": deb.build, "rpm": rpm.build}


def main(argv: Sequence[str] | None = None) -> int:
    """Make what the command line asks for; give the exit status."""
    options = _parser().parse_args(argv)
    release = Release(options.arch, options.version, _epoch())
    try:
        print(_KINDS[options.kind](release, options.output))
    except (WheelError, MergeError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _epoch() -> int:
    """The time that the package's files bear: as the environment says, else of the last commit, else now.

    See reproducible-builds.org/specs/source-date-epoch.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "log", "-1", "--format=%ct"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else int(time.time())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m package", description="Make a package of gospan.")
    parser.add_argument("kind", choices=_KINDS)
    parser.add_argument("--arch", choices=("amd64", "arm64"), default=architecture())
    parser.add_argument("--version", default=__version__, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=PROJECT / "build", metavar="DIRECTORY")
    return parser


if __name__ == "__main__":
    sys.exit(main())
