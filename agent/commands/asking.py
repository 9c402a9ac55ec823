"""What the commands that ask the running agent have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.commands import EXIT_NOT_KNOWN, EXIT_NOT_RUNNING, CommandError
from agent.status.client import VARIABLE, Agent, AskError, NotRunningError, connected, socket_path

EXIT_STATUS = """\
exit status:
  0  the agent answered
  1  what was asked for is not there
  2  a mistake in the command line
  3  no agent is running
  4  the agent may not be asked by you, or doesn't answer

docs/status.md describes the JSON."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all of them take."""
    parser.epilog = EXIT_STATUS
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=Path,
        help=f"where the agent listens (status.socket); else {VARIABLE} in the environment says it",
    )


@contextmanager
def asked(arguments: argparse.Namespace) -> Iterator[Agent]:
    """Connect to the agent; raises CommandError, also for what goes wrong while it is asked."""
    try:
        with connected(socket_path(arguments.socket)) as agent:
            yield agent
    except NotRunningError as error:
        raise CommandError(str(error), status=EXIT_NOT_RUNNING) from None
    except AskError as error:
        raise CommandError(str(error), status=EXIT_NOT_KNOWN) from None
