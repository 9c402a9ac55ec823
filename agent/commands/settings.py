"""The flags that set something in the configuration, and the configuration that comes of them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from agent.commands import EXIT_USAGE, CommandError
from agent.config import DEFAULT_FILE, Config, ConfigError, Level, LogFormat, Problem, Sink, find_files, load
from agent.libraries import LIBRARIES

DEBUG_VARIABLE = "GOSPAN_DEBUG"

_FLAGS = {
    "endpoint": "export.endpoint",
    "traces_exporter": "export.sink",
    "log_level": "log.level",
    "log_format": "log.format",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a command."""
    group = add_file_arguments(parser)
    group.add_argument(
        "--endpoint", metavar="URL", help="send spans there, such as http://localhost:4317 (OTLP over gRPC)"
    )
    group.add_argument("--traces-exporter", metavar=_choices(Sink), help="where spans go")
    group.add_argument(
        "--log-level", metavar=_choices(Level), help="from which severity on messages are written"
    )
    group.add_argument("--log-format", metavar=_choices(LogFormat), help="how messages are written")


def add_file_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the flags that say which configuration, to a command that neither traces nor sends."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"read FILE, and conf.d/*.toml beside it, instead of {DEFAULT_FILE}",
    )
    group.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="set anything that the configuration file can set; may be given several times",
    )
    return group


def _choices(values: type[Sink] | type[Level] | type[LogFormat]) -> str:
    return "|".join(str(value.value) for value in values)


def load_config(arguments: argparse.Namespace) -> Config:
    """Load the configuration: files, environment, and the flags above. Raises ConfigError with all that is wrong."""
    file: Path | None = arguments.config
    if file is not None and not file.exists():
        raise ConfigError([Problem("command line", f"--config: there is no file {file}")])
    # Of all variables with our prefix this one is no setting; as a setting it would be complained of.
    environ = {name: value for name, value in os.environ.items() if name != DEBUG_VARIABLE}
    libraries = [library.name for library in LIBRARIES]
    return load(find_files(file or DEFAULT_FILE), environ, _flags(arguments), libraries=libraries)


def _flags(arguments: argparse.Namespace) -> dict[str, str]:
    flags: dict[str, str] = {}
    for text in arguments.set:
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(
                [
                    Problem(
                        "command line",
                        f"--set wants section.key=value, such as export.timeout=5s, not {text!r}",
                    )
                ]
            )
        flags[path.strip()] = value
    for name, path in _FLAGS.items():
        if getattr(arguments, name, None) is not None:
            flags[path] = getattr(arguments, name)
    return flags


def config_or_error(arguments: argparse.Namespace) -> Config:
    """Load the configuration for a command that can't do without; raises CommandError."""
    try:
        return load_config(arguments)
    except ConfigError as error:
        raise CommandError(*map(str, error.problems), status=EXIT_USAGE) from None
