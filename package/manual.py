"""The manual pages, made of what the program itself knows: the command line's parser and the settings' declarations.

Nothing is listed here, so nothing can be forgotten here.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator

from agent import __version__
from agent.cli import COMMANDS, make_parser
from agent.config.environment import OTEL_VARIABLES
from agent.config.load import DEFAULT_FILE
from agent.config.settings import SECTIONS, settings
from package import roff

_DROP_INS = DEFAULT_FILE.parent / "conf.d"


def gospan_1(date: str) -> str:
    """gospan(1): every command with its options, as `--help` has them."""
    parser = make_parser(*(command.name for command in COMMANDS))
    parts = [
        roff.title("gospan", 1, date=date, source=f"gospan {__version__}", manual="gospan"),
        roff.section("name"),
        "gospan \\- distributed traces from unmodified Go programs, by eBPF\n",
        roff.section("synopsis"),
        "\\fBgospan\\fR \\fICOMMAND\\fR [\\fIoptions\\fR]\n",
        roff.section("description"),
        roff.paragraphs(parser.description or ""),
        roff.section("commands"),
    ]
    parts += _commands(parser, "gospan")
    parts += [roff.section("examples"), roff.verbatim(_examples(parser.epilog or ""))]
    parts += [roff.section("files"), *(roff.item(path, text) for path, text in _FILES)]
    parts += [
        roff.section("see also"),
        "\\fBgospan.toml\\fR(5), and the documents in /usr/share/doc/gospan\n",
    ]
    return "".join(parts)


def gospan_toml_5(date: str) -> str:
    """gospan.toml(5): every setting of the configuration file."""
    standard: dict[str, list[str]] = {}
    for variable, path in OTEL_VARIABLES.items():
        standard.setdefault(path, []).append(variable)
    parts = [
        roff.title("gospan.toml", 5, date=date, source=f"gospan {__version__}", manual="gospan"),
        roff.section("name"),
        "gospan.toml \\- the configuration of gospan\n",
        roff.section("synopsis"),
        roff.paragraphs(f"{DEFAULT_FILE}, {_DROP_INS}/*.toml"),
        roff.section("description"),
        roff.paragraphs(_ABOUT_SETTINGS),
    ]
    section = ""
    for setting in settings():
        if setting.section != section:
            section = setting.section
            parts += [roff.section(f"[{section}]"), roff.paragraphs(SECTIONS[section].__doc__ or "")]
        variables = ", ".join([setting.variable, *standard.get(setting.path, [])])
        default = setting.info.kind.to_toml(setting.default)
        text = f"{setting.info.doc} Kind: {setting.info.kind.name}. Default: `{default}`. Environment: {variables}."
        parts.append(roff.item(setting.name, text))
    parts += [roff.section("see also"), "\\fBgospan\\fR(1), /usr/share/doc/gospan/configuration.md\n"]
    return "".join(parts)


_ABOUT_SETTINGS = """\
The file is TOML. Every setting has a default, so that it may be empty or absent. Files in conf.d, by name, override
config.toml; the environment overrides both, and flags of the command line override all. A setting given twice is
replaced, lists and tables too.

Every setting can be given as an environment variable, and as a flag: `--set section.key=value`. An unknown key or a
value of the wrong kind is an error; `gospan check` tells all of them at once. `gospan check --show-config` prints
what is in force, and where each value comes from."""

_FILES = (
    (str(DEFAULT_FILE), "The configuration; see `gospan.toml`(5)."),
    (f"{_DROP_INS}/*.toml", "Further files, which override it, by name."),
    ("/etc/gospan/headers", "Headers of requests to the collector, such as an API key; the unit loads it."),
    ("/etc/default/gospan, /etc/sysconfig/gospan", "Environment variables of the service."),
    ("/usr/share/gospan/offsets.json", "The table of field offsets that came with the package."),
)


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    """The commands below a parser, and those below them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                yield from _command(sub, f"{name} {word}")


def _command(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    yield roff.subsection(name)
    # Without the width of the terminal that this runs in.
    usage = re.sub(r"\s+", " ", parser.format_usage().removeprefix("usage: "))
    yield roff.paragraphs(f"`{usage.strip()}`")
    yield roff.paragraphs(parser.description or "")
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        tag = formatter._format_action_invocation(action)
        yield roff.item(tag, formatter._expand_help(action) if action.help else "")
    yield roff.verbatim(textwrap.dedent(parser.epilog or ""))
    yield from _commands(parser, name)


def _examples(epilog: str) -> str:
    """The examples of the help, without its heading and its hint at `--help`."""
    lines = epilog.partition("examples:\n")[2].partition("\n\n")[0]
    return textwrap.dedent(lines)
