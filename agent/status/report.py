"""What the agent is doing, as one object: made in the loop's thread, so it must be quick."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from agent import __version__
from agent.executables import Executable
from agent.kernel.features import Features
from agent.kernel.programs import Programs
from agent.plan import LibraryPlan, Off, Plan
from agent.propagation import contexts, where
from agent.spans.pipeline import Pipeline
from agent.spans.sinks import RecentSpans, Sink
from agent.status.protocol import SCHEMA, Json
from agent.status.rates import Rates
from agent.traced import Traced
from agent.tracer import Tracer


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of reading the configuration again: `at` a Unix time; with `problems`, nothing was changed."""

    at: float
    applied: tuple[str, ...] = ()
    postponed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OffsetTable:
    """The table of offsets in use: when it was made, or why there is none."""

    path: Path
    generated: datetime | None = None
    problem: str = ""

    def as_json(self) -> Json:
        """Give it with its age in days."""
        age = datetime.now(timezone.utc) - self.generated if self.generated else None
        return {
            "path": str(self.path),
            "generated": self.generated.isoformat() if self.generated else None,
            "age_days": round(age.total_seconds() / 86400, 1) if age else None,
            "problem": self.problem,
        }


class Reporter:
    """Knows where to look."""

    def __init__(
        self,
        *,
        features: Features,
        programs: Programs,
        tracer: Tracer,
        pipeline: Pipeline,
        sink: Sink,
        recent: RecentSpans,
        offsets: OffsetTable,
    ) -> None:
        self._features = features
        self._programs = programs
        self._tracer = tracer
        self._pipeline = pipeline
        self._sink = sink
        self._recent = recent
        self.offsets = offsets
        self._rates = Rates()
        self._started = time.time()

    def tick(self) -> None:
        """Note the counts of spans, for their rates; every ten seconds or so."""
        self._rates.note(self._pipeline.counts.made, self._pipeline.made_by)

    def report(self, *, reload: Reload | None, lost: Mapping[str, int]) -> Json:
        """Give everything but spans; docs/status.md describes it."""
        numbers = {executable.slot: number for number, executable in enumerate(self._tracer.executables)}
        pipeline = self._pipeline
        counters = self._programs.counters()
        return {
            "schema": SCHEMA,
            "version": __version__,
            "pid": os.getpid(),
            "time": time.time(),
            "started": self._started,
            "reload": dataclasses.asdict(reload) if reload else None,
            "kernel": self._kernel(),
            "offsets": self.offsets.as_json(),
            "spans": {
                "made": pipeline.counts.made,
                "per_second": self._rates.total(pipeline.counts.made),
                "kept": self._recent.kept,
            },
            "lost": dict(lost),
            "export": [dataclasses.asdict(one) for one in self._sink.status()],
            "counters": counters,
            "propagation": {
                "sentence": where(self._programs.propagation, self._features.write_user),
                **dataclasses.asdict(contexts(counters)),
            },
            "executables": [_executable(one) for one in self._tracer.executables],
            "processes": [self._process(one, numbers) for one in self._tracer.traced],
            "not_traced": [dataclasses.asdict(one) for one in self._tracer.not_traced],
        }

    def _kernel(self) -> Json:
        found = self._features
        return {
            "release": ".".join(map(str, found.release)),
            "attach": self._programs.backend.value,
            "buffer": self._programs.buffer,
            "features": {
                name: {"works": feature.works, "sentence": feature.sentence}
                for name, feature in found.named().items()
            },
            "refused": [dataclasses.asdict(one) for one in self._programs.refused],
        }

    def _process(self, traced: Traced, numbers: Mapping[int, int]) -> Json:
        executable = traced.executable
        off = [{"what": name, "why": why} for name, why in sorted(traced.choice.libraries_off.items())]
        on = [one.library.name for one in executable.libraries]
        return {
            "pid": traced.pid,
            "service": traced.service,
            "executable": numbers.get(executable.slot),
            "libraries": [name for name in on if name not in traced.choice.libraries_off],
            "off": [one for one in off if one["what"] in on],
            "sampler": {"name": traced.choice.sampling.name.value, "arg": traced.choice.sampling.arg},
            "spans": self._pipeline.made_by.get(traced.number, 0),
            "per_second": self._rates.of(traced.number, self._pipeline.made_by.get(traced.number, 0)),
        }


def _executable(executable: Executable) -> Json:
    plan: Plan = executable.plan
    attached = {one.library.name for one in executable.libraries}
    return {
        "path": executable.path,
        "go": plan.go_version,
        "version": plan.version,
        "build_id": plan.build_id,
        "sdk": plan.sdk,
        "probes": executable.probes,
        "processes": executable.processes,
        "writers_wait": executable.leased,
        "libraries": [_library(one, on=one.library.name in attached) for one in plan.libraries],
        "off": [_off(one) for one in executable.off],
    }


def _library(plan: LibraryPlan, *, on: bool) -> Json:
    return {
        "name": plan.library.name,
        "version": plan.version,
        "status": plan.status.value if on else "off",
        "off": [_off(one) for one in plan.off],
    }


def _off(off: Off) -> Json:
    return {"what": off.what, "why": off.why}
