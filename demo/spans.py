"""The agent's spans as it prints them, and whether they say what the clients saw."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from demo.traffic import Answer

_WORD = re.compile(r"(\S+)=(\S*)")


@dataclass(frozen=True, slots=True)
class Received:
    """One line of the console exporter, with the words `key=value` in it."""

    line: str
    words: dict[str, str]

    @classmethod
    def of(cls, line: str) -> Received:
        """Take a line apart."""
        return cls(line, dict(_WORD.findall(line)))

    @property
    def path(self) -> str:
        """The request's path, empty if the span has none."""
        return self.words.get("url.path", "")

    @property
    def error(self) -> bool:
        """Whether the span's status is an error."""
        return " error " in self.line


class SpanReader:
    """Collects spans from the agent's standard output, in a thread of its own."""

    def __init__(self, output: IO[bytes]) -> None:
        self.first = threading.Event()
        """Set when the first span has arrived, of whatever request."""
        self._spans: list[Received] = []
        self._changed = threading.Condition()
        self._watcher: Callable[[Received], None] | None = None
        self._thread = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._thread.start()

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            span = Received.of(line.decode(errors="replace").rstrip())
            self.first.set()
            if span.path.startswith("/ready/"):
                continue
            with self._changed:
                self._spans.append(span)
                self._changed.notify_all()
                watcher = self._watcher
            if watcher:
                watcher(span)

    def watch(self, watcher: Callable[[Received], None] | None) -> None:
        """Call `watcher` with each span from now on; None: nobody."""
        with self._changed:
            self._watcher = watcher

    def wait_for(self, count: int, *, timeout: float) -> None:
        """Wait until so many spans are here, or `timeout` seconds have passed."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(self._spans) < count and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def finish(self) -> None:
        """Read on until the agent has closed its output."""
        self._thread.join(5)

    def spans(self) -> list[Received]:
        """Give what has arrived so far."""
        with self._changed:
            return list(self._spans)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Requests by their paths, sorted by what is the matter with their spans."""

    received: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def perfect(self) -> bool:
        """Whether there is exactly one right span for each request."""
        return not (self.lost or self.doubled or self.wrong)

    def examples(self, limit: int) -> Iterable[str]:
        """Give a sentence for each of the first `limit` of a kind."""
        for name, paths in (("lost", self.lost), ("doubled", self.doubled), ("wrong", self.wrong)):
            for path in paths[:limit]:
                yield f"{name}: {path}"


def compare(answers: Sequence[Answer], spans: Sequence[Received]) -> Comparison:
    """Hold the clients' answers against the spans."""
    by_path: dict[str, list[Received]] = defaultdict(list)
    for span in spans:
        by_path[span.path].append(span)
    sent = Counter(answer.request.path for answer in answers)
    return Comparison(
        received=len(spans),
        lost=tuple(path for path in sent if path not in by_path),
        doubled=tuple(path for path, found in by_path.items() if len(found) > sent[path]),
        wrong=tuple(
            f"{answer.request.path}: {complaint}"
            for answer in answers
            for span in by_path[answer.request.path][:1]
            for complaint in _contradictions(answer, span)
        ),
    )


def _contradictions(answer: Answer, span: Received) -> Iterable[str]:
    request, words = answer.request, span.words
    expected = {"http.request.method": request.method}
    if answer.status:
        expected["http.response.status_code"] = str(answer.status)
    if request.trace_id:
        expected |= {"trace": request.trace_id, "parent": request.span_id}
    for key, value in expected.items():
        if words.get(key) != value:
            yield f"{key} is {words.get(key)}, not {value}"
    if request.trace_id == "" and "parent" in words:
        yield "has a parent that nobody sent"
    if span.error != (answer.status == 0 or answer.status >= 500):
        yield "is marked as an error" if span.error else "is not marked as an error"
