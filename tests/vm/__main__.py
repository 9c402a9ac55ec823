"""`python -m tests.vm`: run a command on other kernels, in virtual machines.

Without a command it is the project's own test, tests/vm/server.py. One line for each guest, a sum at the end; exit
status 0 when all passed, 1 when one failed, 2 when the machines can't be had.
"""

# ruff: noqa: T201 (a program for the terminal)

import argparse
import functools
import multiprocessing
import signal
import sys
import textwrap
from collections.abc import Sequence

from tests.vm import guest, kernels, server, userland
from tests.vm.tools import VmError

TEST = ("python", "-m", "tests.vm.server")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line says, and give the exit status."""
    options = _parser().parse_args(argv)
    _end_in_order()
    passed = failed = 0
    try:
        guests = [
            _prepared(name, arch, options)
            for arch in options.arch or kernels.ARCHITECTURES
            for name in options.kernel or kernels.NAMES
        ]
        with multiprocessing.get_context("fork").Pool(options.jobs, _end_in_order) as pool:
            for ok, text in pool.imap_unordered(functools.partial(_run, options=options), guests):
                print(text, flush=True)
                passed, failed = passed + ok, failed + (not ok)
    except VmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def _end_in_order() -> None:
    """Have the machines ended when this process is told to end, and say nothing more."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def _prepared(name: str, arch: str, options: argparse.Namespace) -> kernels.Kernel:
    """Fetch and build what a guest needs, as far as it isn't there."""
    kernel = kernels.fetch(name, arch)
    userland.busybox(arch)
    userland.of(arch, guest.PROJECT, systemd=options.systemd)
    if not options.command:
        server.prepare(arch)
    return kernel


def _run(kernel: kernels.Kernel, options: argparse.Namespace) -> tuple[bool, str]:
    """Run the command on a kernel: whether it succeeded, and what to show of it."""
    result = guest.run(
        kernel,
        options.command or TEST,
        timeout=options.timeout,
        memory=options.memory,
        cpus=options.cpus,
        env=dict(pair.split("=", 1) for pair in options.env),
        systemd=options.systemd,
    )
    ok = result.exit_status == 0
    verdict = f"{'ok' if ok else 'FAILED'} {result.seconds:.1f} s"
    details = [result.output] if not ok or options.verbose or options.command else []
    if not ok:
        details.append(result.problem or f"exit status {result.exit_status}; see {result.directory}")
    lines = [f"{kernel.name} {kernel.arch} ({kernel.release}): {verdict}"]
    lines += [textwrap.indent(text.rstrip("\n"), "    ") for text in details if text]
    return ok, "\n".join(lines)


def _variable(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text}: not of the form NAME=VALUE")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.vm",
        description="Run a command on other kernels, in virtual machines.",
        epilog="Guests see this machine's files at their own places; nothing that they write stays, but for "
        "$GOSPAN_RESULTS, which is build/vm/<kernel>-<arch>.",
    )
    add = parser.add_argument
    add(
        "--kernel", action="append", choices=kernels.NAMES, help="kernel to run on; repeatable (default: all)"
    )
    add(
        "--arch",
        action="append",
        choices=kernels.ARCHITECTURES,
        help="architecture; repeatable (default: all)",
    )
    add(
        "--timeout",
        type=float,
        default=900,
        metavar="S",
        help="seconds that one guest may take (default: %(default)g)",
    )
    # Much of what a guest does is done by one processor: two guests keep two busy.
    add("--jobs", type=int, default=2, metavar="N", help="guests at a time (default: %(default)s)")
    add("--memory", type=int, default=2048, metavar="MIB", help="memory of a guest (default: %(default)s)")
    add("--cpus", type=int, default=2, metavar="N", help="processors of a guest (default: %(default)s)")
    add(
        "--env",
        action="append",
        type=_variable,
        default=[],
        metavar="NAME=VALUE",
        help="variable for the command",
    )
    add(
        "--systemd", action="store_true", help="boot a Debian 12 with systemd instead of this machine's files"
    )
    add("-v", "--verbose", action="store_true", help="show the command's output also when it succeeds")
    add("command", nargs="*", metavar="-- COMMAND", help=f"command to run (default: {' '.join(TEST)})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
