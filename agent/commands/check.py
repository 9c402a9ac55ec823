"""Say what the kernel, the privileges and the configuration allow, in words.

Everything is tried for real, on a small scale: programs are loaded and unloaded
again, nothing is attached to any program.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence

from agent import __version__
from agent.commands import EXIT_FAILED, EXIT_OK, EXIT_USAGE, settings
from agent.commands.collector import of_collector
from agent.commands.findings import (
    CONFIGURATION,
    KERNEL,
    OFFSETS,
    PROGRAMS,
    Finding,
    Level,
    of_configuration,
    of_kernel,
    of_programs,
    worst,
)
from agent.commands.terminal import Style, Terminal, printable
from agent.config import Config, ConfigError, Kernel, Propagation
from agent.config.render import show
from agent.kernel.btf import BtfError
from agent.kernel.errors import KernelError
from agent.kernel.features import Features, features
from agent.kernel.privileges import lockdown
from agent.kernel.programs import PROCESS_OBJECT, Programs
from agent.libraries import LIBRARIES
from agent.offsets.active import Tables, tables_of
from agent.paths import how_to_have, object_file, packaged_offsets

_EPILOG = """\
exit status:
  0  all is fine; notes and warnings don't count
  1  gospan works with limits: the lines marked `limit` say which (0 with --tolerate-limits)
  2  gospan can't work, or a mistake in the command line or the configuration"""

_VERDICTS = {
    EXIT_OK: ("ok", Style.GOOD, "gospan works here."),
    EXIT_FAILED: ("limited", Style.MIDDLING, "gospan works here, with limits."),
    EXIT_USAGE: ("unable", Style.BAD, "gospan can't work here."),
}
_STYLES = {
    Level.OK: Style.GOOD,
    Level.NOTE: Style.FAINT,
    Level.WARNING: Style.MIDDLING,
    Level.LIMIT: Style.MIDDLING,
    Level.FAILURE: Style.BAD,
}
_USER = "user"
_LABEL = max(len(level.name) for level in Level) + 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.epilog = _EPILOG
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("-q", "--quiet", action="store_true", help="only say what isn't all right")
    parser.add_argument(
        "--tolerate-limits",
        action="store_true",
        help="exit with 0 where gospan works, with limits or without",
    )
    parser.add_argument(
        "--configuration",
        action="store_true",
        help="look at the configuration alone, which is all that a reload can change: it takes no time",
    )
    parser.add_argument(
        "--show-config",
        action="store_true",
        help="only print the configuration in force, and where each value comes from",
    )
    settings.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Find out and report."""
    if arguments.show_config:
        sys.stdout.write(show(settings.config_or_error(arguments)))
        return EXIT_OK
    findings = list(find_out(arguments))
    status = {Level.LIMIT: EXIT_FAILED, Level.FAILURE: EXIT_USAGE}.get(worst(findings), EXIT_OK)
    if arguments.json:
        text = json.dumps(as_json(findings, status), indent=2)
    else:
        text = "\n".join(as_text(findings, status, Terminal.of(sys.stdout), quiet=arguments.quiet))
    if text:
        sys.stdout.write(text + "\n")
    return EXIT_OK if status == EXIT_FAILED and arguments.tolerate_limits else status


def find_out(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Look at everything. Where the configuration is wrong, the kernel is still looked at, by the defaults."""
    config: Config | None = None
    try:
        config = settings.load_config(arguments)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(CONFIGURATION, "error", Level.FAILURE, str(problem))
    else:
        yield from of_configuration(config)
    if arguments.configuration:
        return
    kernel = config.kernel if config else Kernel()
    try:
        found = features()
    except KernelError as error:
        yield Finding(KERNEL, "libbpf", Level.FAILURE, str(error))
    else:
        if not found.loading and os.geteuid() != 0:
            text = "This is what you may do; the service may do more. Run it as root to see what."
            yield Finding(KERNEL, _USER, Level.NOTE, text)
        yield from of_kernel(found, kernel, lockdown=lockdown())
        yield from _programs(found, kernel, config.propagation if config else Propagation())
    yield _offsets(tables_of(config) if config else Tables(packaged_offsets()))
    if config:
        yield from of_collector(config.export)


def _programs(found: Features, kernel: Kernel, propagation: Propagation) -> Iterator[Finding]:
    """Load every BPF object, with maps as small as can be: the service may be running in the same cgroup."""
    names = [PROCESS_OBJECT, *(library.object for library in LIBRARIES)]
    missing = [path for path in map(object_file, names) if not path.exists()]
    for path in missing:
        text = how_to_have(path)
        yield Finding(PROGRAMS, path.name, Level.FAILURE, f"{text[0].upper()}{text[1:]}.")
    if missing or not found.loading or not found.backends:
        return
    small = dataclasses.replace(kernel, buffer_size=64 << 10, max_in_flight=64, max_executables=1)
    try:
        with Programs.load(found, small, libraries=LIBRARIES, propagation=propagation) as programs:
            refused = [(one.library, one.program, one.reason) for one in programs.refused]
    except (KernelError, BtfError) as error:
        yield Finding(PROGRAMS, PROCESS_OBJECT, Level.FAILURE, f"The programs can't be loaded: {error}")
        return
    text = "The kernel takes the programs that follow processes."
    yield Finding(PROGRAMS, PROCESS_OBJECT, Level.OK, text)
    yield from of_programs([library.name for library in LIBRARIES], refused)


def _offsets(tables: Tables) -> Finding:
    """Look at the table of offsets: it is there, and in order."""
    found = tables.in_force()
    wrong = "; ".join(found.complaints)
    if found.table is None:
        text = f"Fields that executables don't describe themselves stay unknown: {wrong}."
        return Finding(OFFSETS, "table", Level.LIMIT, text)
    text = f"Offsets that executables don't tell come from {found.path}, made on {found.table.generated:%Y-%m-%d}."
    if wrong:
        return Finding(OFFSETS, "table", Level.WARNING, f"{text} Another table can't be used: {wrong}.")
    return Finding(OFFSETS, "table", Level.OK, text)


def as_json(findings: Sequence[Finding], status: int) -> dict[str, object]:
    """Give the report for programs."""
    return {
        "version": __version__,
        "status": _VERDICTS[status][0],
        "findings": [
            {
                "area": one.area,
                "what": one.what,
                "level": one.level.name.lower(),
                "sentence": one.sentence,
            }
            for one in findings
        ],
    }


def as_text(findings: Sequence[Finding], status: int, terminal: Terminal, *, quiet: bool) -> Iterator[str]:
    """Give the report for people: area by area, the verdict at the end. Quiet, nothing if nothing is wrong."""
    shown = [one for one in findings if one.level > Level.NOTE] if quiet else findings
    area = ""
    for one in shown:
        if one.area != area:
            if area:
                yield ""
            area = one.area
            yield terminal.styled(area, Style.TITLE)
        yield from _lines(one, terminal)
    if shown:
        yield ""
        yield terminal.styled(_verdict(findings, status), _VERDICTS[status][1])


def _verdict(findings: Sequence[Finding], status: int) -> str:
    if all(one.area == CONFIGURATION for one in findings):
        return "The configuration can be used." if status == EXIT_OK else "The configuration can't be used."
    sentence = _VERDICTS[status][2]
    if any(one.what == _USER for one in findings):
        return f"{sentence.removesuffix('.')} when you run it."
    return sentence


def _lines(finding: Finding, terminal: Terminal) -> Iterator[str]:
    """A finding as lines; a verifier's reason has several, which stay as they are."""
    label = finding.level.name.lower()
    first, *others = finding.sentence.splitlines() or [""]
    lines = terminal.wrapped(printable(first), first=f"  {label:{_LABEL}}", indent=2 + _LABEL)
    yield lines[0].replace(label, terminal.styled(label, _STYLES[finding.level]), 1)
    yield from lines[1:]
    for line in others:
        yield " " * (4 + _LABEL) + printable(line.expandtabs())
