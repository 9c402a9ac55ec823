"""Print the version of gospan."""

from __future__ import annotations

import argparse
import sys

from agent import __version__
from agent.commands import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""
    del parser


def run(arguments: argparse.Namespace) -> int:
    """Print it, as `gospan --version` does."""
    del arguments
    sys.stdout.write(f"gospan {__version__}\n")
    return EXIT_OK
