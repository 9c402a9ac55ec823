"""Show, check, update and make the table of field offsets, the second source besides each program's own type
information.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from agent.commands import EXIT_FAILED, EXIT_OK, CommandError, offsets_update, settings
from agent.commands.inspect import object_types
from agent.commands.offsets_update import contents
from agent.commands.target import open_target
from agent.commands.terminal import printable
from agent.executable import Executable, ExecutableError
from agent.offsets.active import tables_of
from agent.offsets.fields import wanted_fields
from agent.offsets.store import Receipt, Store
from agent.offsets.table import Table, TableError, load, version_in
from agent.paths import packaged_offsets

_EPILOG = """\
examples:
  gospan offsets show                      which table is in force, from where, and what does it cover?
  gospan offsets verify /usr/bin/dockerd   does the table agree with this program?
  sudo gospan offsets update               fetch a newer one
  gospan offsets update --download-file offsets.json
                                           fetch it here, to carry it to a closed network, and there:
  sudo gospan offsets update --from-file offsets.json
  sudo gospan offsets rollback             go back to the one before
  gospan offsets build --since             make one: add the versions that are new"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", required=True, parser_class=type(parser)
    )
    show = actions.add_parser("show", help="say which table is in force, from where, and what it covers")
    show.add_argument("--fields", action="store_true", help="list every field and its offsets")
    show.set_defaults(action=_show)
    verify = actions.add_parser("verify", help="compare a program's type information with the table")
    verify.add_argument("target", metavar="PATH|PID", help="the program's file, or a process that runs it")
    verify.add_argument("--all", action="store_true", help="print what agrees too")
    verify.set_defaults(action=_verify)
    for one in (show, verify):
        one.add_argument(
            "--table", metavar="FILE", type=Path, help="another table than the one that is in force"
        )
        settings.add_file_arguments(one)
    offsets_update.add_arguments(actions)
    _add_build(
        actions.add_parser("build", help="make the table, by building a small program with every version")
    )


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Needs the go command (1.21 or later), a Go module proxy (GOPROXY) and about 5 GB of disk. It may be"
        " interrupted; the same command goes on."
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, default=packaged_offsets(), help="default: %(default)s"
    )
    parser.add_argument(
        "--since",
        metavar="TABLE",
        type=Path,
        nargs="?",
        const=packaged_offsets(),
        help="take over what this table has (gospan's own, if none is given) and build only what is new",
    )
    parser.add_argument(
        "--only",
        metavar="MODULE",
        action="append",
        default=[],
        help="build this module (std is Go itself), and take over the others as they are; may be repeated",
    )
    parser.add_argument(
        "-j", "--jobs", type=_jobs, default=max(1, (os.cpu_count() or 1) // 2), help="builds at a time"
    )
    parser.add_argument(
        "--goroot",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="use this installed Go for the release that it is; may be repeated",
    )
    parser.add_argument(
        "--state", metavar="DIR", type=Path, help="where to keep what was read (default: below ~/.cache)"
    )
    parser.add_argument("--retry", action="store_true", help="try again what could not be built")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="write the table even if versions are missing, and say in it which",
    )
    parser.set_defaults(action=_build)


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 256")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for."""
    status: int = arguments.action(arguments)
    return status


def _build(arguments: argparse.Namespace) -> int:
    # What makes tables needs more than what reads them, so it is imported only here.
    from agent.offsets.generate import GenerateError, Generator
    from agent.offsets.programs import PROGRAMS
    from agent.offsets.progress import Progress
    from agent.offsets.state import State, default_directory
    from agent.offsets.toolchains import GoError, Toolchains

    state = State((arguments.state or default_directory()).resolve())
    if arguments.retry:
        state.forget_reasons()
    known = [program.module for program in PROGRAMS]
    for module in arguments.only:
        if module not in known:
            raise CommandError(f"there is no program for {module!r}; there are those for {', '.join(known)}")
    path = arguments.since or (packaged_offsets() if arguments.only else None)
    since = _load(path) if path else None
    wanted = wanted_fields(object_types().values())
    try:
        toolchains = Toolchains(state.directory / "toolchains", [root.resolve() for root in arguments.goroot])
        generator = Generator(state, toolchains, wanted, PROGRAMS, since, arguments.jobs, only=arguments.only)
        try:
            tasks = generator.tasks() or generator.ends_tasks()
            try:
                while tasks:
                    generator.run(tasks, Progress(sys.stderr, len(tasks)).report)
                    tasks = generator.tasks() or generator.ends_tasks()
            except (KeyboardInterrupt, GenerateError) as error:
                if not arguments.partial:
                    raise
                _write(generator.table(_now(), partial=True), arguments.output)
                raise error from None
        finally:
            toolchains.close()
        _write(generator.table(_now(), partial=arguments.partial), arguments.output)
    except GenerateError as error:
        raise CommandError(*error.reasons) from None
    except (GoError, OSError) as error:
        raise CommandError(str(error)) from None
    return EXIT_OK


def _now() -> datetime:
    """The time of making, which a reproducible build may set (reproducible-builds.org/specs/source-date-epoch)."""
    return datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()), timezone.utc)


def _write(table: Table, path: Path) -> None:
    """Replace the file, but for a table that says the same as the one there is: that keeps its date."""
    if path.exists():
        try:
            old = load(path)
        except TableError:
            pass
        else:
            if old.modules == table.modules:
                sys.stdout.write(f"{path} is up to date: {contents(table)}\n")
                return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(table.dump())
    unfinished.replace(path)
    sys.stdout.write(f"{path}: {contents(table)}\n")


def _load(path: Path) -> Table:
    try:
        return load(path)
    except TableError as error:
        raise CommandError(str(error)) from None


def _verify(arguments: argparse.Namespace) -> int:
    from agent.offsets.verify import compare

    found = _in_force(arguments)
    table = found.table
    wanted = wanted_fields(object_types().values())
    with open_target(arguments.target) as target:
        try:
            with Executable(target.path, fd=target.fd) as executable:
                compared = list(compare(executable, table, wanted))
                info = executable.build_info
        except ExecutableError as error:
            raise CommandError(str(error)) from None
    differing = [one for one in compared if one.differs]
    common = [one for one in compared if one.found is not None and one.listed is not None]
    out = sys.stdout
    for one in compared if arguments.all else differing:
        read = "-" if one.found is None else str(one.found)
        listed = "-" if one.listed is None else f"{one.listed.offset} ({one.listed.version})"
        mark = "differs" if one.differs else "agrees" if one in common else "only one knows it"
        out.write(f"{one.field}: type information {read}, table {listed}: {mark}\n")
    for module in table.modules.values():
        version = version_in(module.path, info)
        if version is not None and version not in module:
            reason = module.unavailable.get(version, "it is newer or older than the table")
            out.write(f"the table hasn't {module.path} {version}: {reason}\n")
    out.write(f"{len(common)} fields compared, {len(differing)} differ; {info.go_version}, {found.path}\n")
    return EXIT_FAILED if differing else EXIT_OK


def _in_force(arguments: argparse.Namespace) -> _Found:
    """The table that was asked for, else the one in force."""
    if arguments.table:
        return _Found(_load(arguments.table), arguments.table, None, None)
    tables = tables_of(settings.config_or_error(arguments))
    found = tables.in_force()
    for complaint in found.complaints:
        sys.stderr.write(f"gospan: {printable(complaint)}\n")
    if found.table is None:
        raise CommandError("no table is in force")
    return _Found(found.table, found.path, found.receipt, tables.store)


def _age(generated: datetime) -> str:
    days = (datetime.now(timezone.utc) - generated).days
    return f"{days} days ago" if days >= 0 else "which is still to come by this machine's clock"


@dataclass(frozen=True, slots=True)
class _Found:
    table: Table
    path: Path
    receipt: Receipt | None
    store: Store | None


def _show(arguments: argparse.Namespace) -> int:
    found = _in_force(arguments)
    table = found.table
    out = sys.stdout
    out.write(f"table      {found.path}\n")
    if receipt := found.receipt:
        installed = datetime.fromtimestamp(receipt.installed, timezone.utc)
        how = ", forced" if receipt.forced else ""
        out.write(f"from       {receipt.origin}, {installed:%Y-%m-%d %H:%M} UTC{how}\n")
        out.write(f"signed by  {receipt.key}\n")
    elif not arguments.table:
        out.write("from       this gospan\n")
    out.write(f"generated  {table.generated:%Y-%m-%d %H:%M} UTC, {_age(table.generated)}\n")
    if found.store and found.store.previous.exists():
        former = found.store.receipt(found.store.previous)
        out.write(f"before it  {found.store.previous}{f', from {former.origin}' if former else ''}\n")
    for module in table.modules.values():
        out.write(f"\n{module.path}\n")
        if module.versions:
            out.write(
                f"  versions     {len(module.versions)}, from {module.versions[0]} to {module.versions[-1]}\n"
            )
        out.write(f"  for arm64    {len(module.arm64)} of them were built as well\n")
        out.write(f"  fields       {len(module.fields)}\n")
        for version, reason in module.unavailable.items():
            out.write(f"  without      {version}: {reason}\n")
        if arguments.fields:
            for name, ranges in module.fields.items():
                out.write(f"  {name}\n")
                for one in ranges:
                    arch = f" on {one.arch}" if one.arch else ""
                    out.write(f"    {one.offset:5}  {one.first} to {one.last}{arch}\n")
    return EXIT_OK
