"""Trace the Go programs of this machine until told to stop, by SIGTERM or ctrl-C.

Finds programs that run already and those that start later. Without a
configuration it traces every Go program and sends to http://localhost:4317.
"""

from __future__ import annotations

import argparse
import traceback

from agent import log
from agent.commands import CommandError, settings
from agent.config import Level
from agent.kernel.errors import KernelError

_EPILOG = """\
examples:
  gospan run --traces-exporter console        no collector needed: spans on standard output
  gospan run --endpoint https://collector:4317
  gospan run --set discovery.scan_interval=2s --log-level debug

Flags outrank the environment (OTEL_* and GOSPAN_<SECTION>_<KEY>), which outranks the
files; docs/configuration.md has every setting.

exit status:
  0  stopped by a signal, after everything was sent that could be
  1  tracing isn't possible here; `gospan check` says more
  2  a mistake in the command line or the configuration"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.epilog = _EPILOG
    settings.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the daemon in the foreground, until a signal ends it."""
    config = settings.config_or_error(arguments)
    log.configure(config.log.level, config.log.format)
    logger = log.get()
    for warning in config.warnings:
        logger.warning(warning)
    # Only now: it brings gRPC, and a wrong configuration should be told without a wait.
    from agent.start import run_daemon

    try:
        return run_daemon(config, logger, lambda: settings.load_config(arguments))
    except KernelError as error:
        raise CommandError(f"{error}", "`gospan check` says what this machine allows") from None
    except Exception:
        if config.log.level is Level.DEBUG:
            traceback.print_exc()
        raise
