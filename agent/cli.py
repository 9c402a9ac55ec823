"""The command line: finds the command, runs it, and turns what went wrong into a sentence and an exit status.

A command is a module of agent/commands and a line below. Only the module of the command that was called is imported,
so `gospan --version` doesn't wait for what the daemon needs. Such a module has two functions:
`add_arguments(parser)`, and `run(arguments)`, which gives the exit status.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from agent import __version__
from agent.commands import EXIT_BUG, EXIT_INTERRUPTED, EXIT_PIPE, EXIT_USAGE, CommandError
from agent.commands.terminal import printable


@dataclass(frozen=True, slots=True)
class Command:
    """A command's name, which is its module's too, and what it does."""

    name: str
    summary: str


COMMANDS = (
    Command("run", "trace the Go programs of this machine; what the service runs"),
    Command("status", "say what the running agent does, what is off and why, and what was lost"),
    Command("ps", "list the Go processes: what is traced of each, what not, and why"),
    Command("spans", "show spans as they come (-f), or those that are kept"),
    Command("trace", "draw a trace as a waterfall"),
    Command("top", "show rate, errors and durations by service and operation, as they are now"),
    Command("inspect", "show what would be traced in a program, and what not, and why"),
    Command("check", "say what the kernel and the configuration allow"),
    Command("offsets", "make, check and show the table of field offsets"),
    Command("version", "print the version"),
)

_DESCRIPTION = """\
Distributed traces from unmodified Go programs: gospan finds them, attaches eBPF
probes to the libraries in them, and sends OpenTelemetry spans to a collector."""

_EXAMPLES = """\
examples:
  gospan inspect /usr/bin/dockerd     what would be traced in a program
  gospan inspect 1234                 the same for a running process
  sudo gospan check                   would it work on this machine?
  sudo gospan run --traces-exporter console
                                      trace, and show the spans right here

`gospan COMMAND --help` tells more about each."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line that begins like every message of gospan."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"gospan: {message}\nTry `{self.prog} --help`.\n")


def make_parser(*chosen: str) -> argparse.ArgumentParser:
    """Make the parser; of the commands, only the chosen ones have their arguments."""
    parser = _Parser(
        prog="gospan",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"gospan {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            help=command.summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if command.name in chosen:
            module = importlib.import_module(f"agent.commands.{command.name}")
            sub.description = _filled(module.__doc__ or "")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def _filled(text: str) -> str:
    """Fill paragraphs to the width of the terminal, as argparse does with the help of arguments."""
    width = min(shutil.get_terminal_size().columns - 2, 100)
    return "\n\n".join(textwrap.fill(" ".join(part.split()), width) for part in text.split("\n\n"))


def _dispatch(words: Sequence[str]) -> int:
    names = [command.name for command in COMMANDS]
    # The options before the command take no value, so the first word that is none is the command.
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = make_parser(*filter(None, [chosen]))
    if chosen is None and not {"-h", "--help", "-V", "--version"} & set(words):
        if words:
            parser.error(f"there is no option {words[0]} before the command")
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    if chosen is not None and chosen not in names:
        near = get_close_matches(chosen, names, n=1)
        parser.error(
            f"there is no command {chosen!r}; "
            + (f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}")
        )
    arguments = parser.parse_args(words)
    status: int = arguments.run(arguments)
    return status


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that `words`, else the command line, ask for. Gives the exit status; raises only SystemExit."""
    for stream in (sys.stdout, sys.stderr):
        # Paths and symbols are whatever bytes somebody chose.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _dispatch(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
    except CommandError as error:
        return _complain(error.messages, error.status)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough, such as head(1). What is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as error:  # noqa: BLE001 -- nobody else is left to report it
        return _bug(error)
    return status


def _complain(messages: Sequence[str], status: int) -> int:
    for message in messages or ("failed",):
        sys.stderr.write(f"gospan: {printable(message)}\n")
    return status


def _bug(error: Exception) -> int:
    """Report what nobody foresaw: in a line, or with the traceback where that was asked for."""
    if os.environ.get("GOSPAN_DEBUG"):
        traceback.print_exception(error)
        return EXIT_BUG
    last = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    place = f"{Path(last.filename).name}:{last.lineno}"
    hint = "this is a bug in gospan; GOSPAN_DEBUG=1 in the environment shows where it is"
    return _complain([f"{what} at {place}; {hint}"], EXIT_BUG)
