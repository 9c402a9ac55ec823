"""`python -m tests.vm`: run a command on other kernels, in virtual machines.

Without a command it is the project's own check of a guest. One line for each kernel, a sum at the end; exit
status 0 when all passed, 1 when one failed, 2 when the machines can't be had.
"""

# ruff: noqa: T201 (a program for the terminal)

import argparse
import signal
import sys
from collections.abc import Sequence

from tests.vm import guest, kernels
from tests.vm.tools import VmError

CHECK = ("python", "-m", "tests.vm.check")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line says, and give the exit status."""
    options = _parser().parse_args(argv)
    # As an interrupt does: end the machines in order, and say nothing more.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    passed = failed = 0
    try:
        for arch in options.arch or kernels.ARCHITECTURES:
            for name in options.kernel or kernels.NAMES:
                if _one(kernels.fetch(name, arch), options):
                    passed += 1
                else:
                    failed += 1
    except VmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def _one(kernel: kernels.Kernel, options: argparse.Namespace) -> bool:
    command = options.command or CHECK
    result = guest.run(
        kernel,
        command,
        timeout=options.timeout,
        memory=options.memory,
        cpus=options.cpus,
        env=dict(pair.split("=", 1) for pair in options.env),
        systemd=options.systemd,
    )
    ok = result.exit_status == 0
    print(
        f"{kernel.name} {kernel.arch} ({kernel.release}): {'ok' if ok else 'FAILED'} {result.seconds:.1f} s",
        flush=True,
    )
    if not ok or options.verbose or options.command:
        _indented(result.output)
    if result.problem:
        _indented(result.problem)
    elif not ok:
        _indented(f"exit status {result.exit_status}; see {result.directory}")
    return ok


def _indented(text: str) -> None:
    for line in text.splitlines():
        print(f"    {line}", flush=True)


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
        default=300,
        metavar="S",
        help="seconds that one guest may take (default: %(default)g)",
    )
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
    add("command", nargs="*", metavar="-- COMMAND", help=f"command to run (default: {' '.join(CHECK)})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
