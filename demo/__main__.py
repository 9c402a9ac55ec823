"""What `make demo` shows: an ordinary Go program, its requests, and the spans that gospan makes of them.

Ends with 0 if every request has given exactly one span that says what the client saw, with 1 if not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from agent.kernel.errors import KernelError
from agent.kernel.stats import counted
from bench.gospan import ROOT, Agent, cpu_seconds, program_runs, resident_bytes
from demo.spans import Received, SpanReader, compare
from demo.traffic import Answer, Visitor, requests

WORKSPACE = ROOT / "build" / "demo"
SHOP = WORKSPACE / "shop"

SLOW, FAST = 12, 320
PATIENCE = 15.0
"""Seconds that the agent may take to attach, and the last span to arrive."""


class DemoError(Exception):
    """Something keeps the demo from going on; the message says what."""


def say(text: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def title(text: str) -> None:
    """Print a heading."""
    say(f"\n\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else f"\n== {text}")


def build() -> None:
    """Compile the shop without symbols, without debug information, and without asking the network."""
    WORKSPACE.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(SHOP), "."]
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    built = subprocess.run(
        command, cwd=ROOT / "demo" / "shop", env=environment, capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise DemoError(f"the demo program doesn't build:\n{built.stderr}")


@contextlib.contextmanager
def shop() -> Iterator[int]:
    """Run the shop; gives the port it listens on."""
    with subprocess.Popen([SHOP], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 -- for the type checker
            yield int(process.stdout.readline())
        finally:
            process.kill()


def wait_until_traced(agent: Agent, visitor: Visitor, reader: SpanReader) -> float:
    """Knock until a span comes back, and give the seconds that took."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        if not agent.running:
            raise DemoError(f"the agent has ended:\n{agent.complaint()}")
        visitor.knock()
        if reader.first.wait(0.1):
            return time.monotonic() - began
    raise DemoError(f"no span after {PATIENCE:.0f} s. The agent says:\n{agent.complaint()}")


def show(span: Received) -> None:
    """Print a span as the agent wrote it, cut to the terminal's width."""
    width = shutil.get_terminal_size((160, 24)).columns
    line = span.line if len(span.line) <= width - 2 else span.line[: width - 3] + "…"
    say(f"  \x1b[31m{line}\x1b[0m" if span.error and sys.stdout.isatty() else f"  {line}")


def summarise(answers: Sequence[Answer], reader: SpanReader) -> bool:
    """Compare what the clients saw with what the spans say; print it, and say whether all is well."""
    outcome = compare(answers, reader.spans())
    count = {
        kind: sum(answer.kind == kind for answer in answers) for kind in ("answered", "4xx", "5xx", "aborted")
    }
    say(
        f"  sent      {len(answers)} requests: {count['answered']} answered, {count['4xx']} not found, "
        f"{count['5xx']} failed, {count['aborted']} ended by a panic"
    )
    say(
        f"  spans     {outcome.received} received, {len(outcome.lost)} lost, {len(outcome.doubled)} doubled, "
        f"{len(outcome.wrong)} wrong"
    )
    for complaint in outcome.examples(3):
        say(f"            {complaint}")
    return outcome.perfect


def run() -> bool:
    """Do the whole demonstration; say whether every span is there and right."""
    if os.geteuid() != 0:
        raise DemoError("attaching probes needs root: run make demo as root")

    title("A Go program, built as for production: stripped, no tracing library in it")
    say("  go build (where Go is new, its library is compiled first: a minute)")
    build()
    say(f"  {SHOP.relative_to(ROOT)}, {SHOP.stat().st_size / 1e6:.1f} MB")

    with (
        shop() as port,
        Agent(
            WORKSPACE,
            trace=SHOP,
            sink="console",
            environment={"GOSPAN_EXPORT_SCHEDULE_DELAY": "0.1"},
            stdout=subprocess.PIPE,
        ) as agent,
        Visitor(port) as visitor,
        contextlib.ExitStack() as statistics,
    ):
        assert agent.process.stdout is not None  # noqa: S101 -- for the type checker
        reader = SpanReader(agent.process.stdout)
        title("gospan run --traces-exporter console: it finds the program and attaches to it")
        say(f"  first span after {wait_until_traced(agent, visitor, reader):.1f} s")

        with contextlib.suppress(KernelError):  # before Linux 5.8: the summary does without
            statistics.enter_context(counted())
        runs, cpu, began = program_runs(agent.pid), cpu_seconds(agent.pid), time.monotonic()

        title(f"{SLOW} requests, one after the other, and their spans")
        reader.watch(show)
        answers = []
        for request in requests(SLOW):
            answers.append(visitor.send(request))
            time.sleep(0.25)
        reader.wait_for(len(answers), timeout=PATIENCE)
        reader.watch(None)

        title(f"{FAST} more over four connections")
        answers += Visitor.crowd(port, requests(FAST, first=SLOW), visitors=4)
        reader.wait_for(len(answers), timeout=PATIENCE)
        took = time.monotonic() - began
        ran, spent = program_runs(agent.pid) - runs, cpu_seconds(agent.pid) - cpu
        resident = resident_bytes(agent.pid)

        title("What came of it")
        agent.stop()
        reader.finish()
        perfect = summarise(answers, reader)
        if ran.runs:
            each = ran.nanoseconds / len(answers) / 1000
            say(f"  probes    {ran.runs / len(answers):.2f} hits a request, {each:.1f} us in them")
        say(f"  agent     {resident / 1e6:.0f} MB resident, {spent:.2f} s CPU in {took:.1f} s")
    return perfect


def main() -> int:
    """Run the demo; give its exit status."""
    try:
        if run():
            say("\nEvery request has its span.")
            return 0
        say(f"\nSomething is missing. The agent's log: {(WORKSPACE / 'gospan.log').relative_to(ROOT)}")
    except DemoError as error:
        say(f"\n{error}")
    except KeyboardInterrupt:
        say("\nstopped")
    return 1


if __name__ == "__main__":
    sys.exit(main())
