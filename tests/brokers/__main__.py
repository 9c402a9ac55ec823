"""Run a broker until interrupted: `python -m tests.brokers kafka`."""

from __future__ import annotations

import argparse
import signal
import sys

from tests.brokers import kafka

BROKERS = {"kafka": kafka.running}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.brokers", description=__doc__)
    parser.add_argument("broker", choices=BROKERS)
    with BROKERS[parser.parse_args().broker]() as broker:
        sys.stdout.write(f"{broker.address} (data in {broker.directory})\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
