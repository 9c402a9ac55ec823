"""Show what gospan would trace in a Go program, where its probes would go, and what would be off and why.

Needs no privileges beyond reading the file, and changes nothing. A number is a
process, everything else a path; write ./1234 for a file of that name.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from agent.commands import EXIT_OK, CommandError
from agent.commands.plan_json import as_json
from agent.commands.plan_text import as_text
from agent.commands.target import open_target
from agent.commands.terminal import Terminal
from agent.config import Config
from agent.executable import Executable, ExecutableError
from agent.kernel import btf
from agent.libraries import LIBRARIES
from agent.offsets.active import tables_of
from agent.offsets.resolve import Resolver
from agent.offsets.table import TableError, load
from agent.paths import how_to_have, object_file
from agent.plan import make_plan

_EPILOG = """\
exit status:
  0  the plan was printed; it may say that there is nothing to trace
  1  it isn't a Go program that can be traced, or it can't be read
  2  a mistake in the command line

The JSON is described in docs/inspect.md, and by docs/inspect.schema.json."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.epilog = _EPILOG
    parser.add_argument("target", metavar="PATH|PID", help="the program's file, or a process that runs it")
    parser.add_argument(
        "--offsets",
        metavar="FILE",
        type=Path,
        help="use this table of field offsets instead of the installed one",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--modules", action="store_true", help="list all modules, however many there are")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan of an executable."""
    types, resolver = object_types(), _resolver(arguments.offsets)
    with open_target(arguments.target) as target:
        try:
            with Executable(target.path, fd=target.fd) as executable:
                plan = make_plan(executable, types, resolver)
                info = executable.build_info
        except ExecutableError as error:
            raise CommandError(str(error)) from None
    if arguments.json:
        text = json.dumps(as_json(plan, info, target), indent=2)
    else:
        terminal = Terminal.of(sys.stdout)
        text = "\n".join(as_text(plan, info, target, terminal, all_modules=arguments.modules))
    sys.stdout.write(text + "\n")
    return EXIT_OK


def _resolver(given: Path | None) -> Resolver:
    """Resolve by type information, and by the table where there is one. Raises CommandError.

    Without any table a plan can still be made: what it lacks is in it, with the reason. A damaged one, or
    one that was asked for and isn't there, is an error.
    """
    if given is None:
        tables = tables_of(Config())
        found = tables.in_force()
        if found.table is None and tables.own.exists():
            raise CommandError(*(f"the offset table can't be used: {one}" for one in found.complaints))
        return Resolver(found.table)
    try:
        return Resolver(load(given))
    except TableError as error:
        raise CommandError(f"the offset table can't be used: {error}") from None


def object_types() -> dict[str, btf.Btf]:
    """Read the types of every library's BPF object: they say which fields are wanted. Raises CommandError."""
    types: dict[str, btf.Btf] = {}
    for library in LIBRARIES:
        path = object_file(library.object)
        try:
            types[library.object] = btf.read(str(path))
        except btf.BtfError as error:
            if path.exists():
                raise CommandError(f"{error}; compile it again by `make bpf`") from None
            raise CommandError(how_to_have(path)) from None
    return types
