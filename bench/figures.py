"""What was measured, beside what was aimed at: a table for people, JSON for comparing runs."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number. `limit` is the aim: at most, or at least where `higher` says that more is better."""

    name: str
    value: float
    unit: str
    method: str
    limit: float | None = None
    higher: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.higher else self.value <= self.limit

    @property
    def aim(self) -> str:
        """The aim in words."""
        if self.limit is None:
            return ""
        return f"{'>=' if self.higher else '<='} {_number(self.limit)}"


def machine() -> dict[str, str | int]:
    """Describe where this is measured. A load much above 0 before the start means that others disturb it."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "kernel": platform.release(),
        "arch": platform.machine(),
        "cpu": models[0] if models else "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def table(figures: Sequence[Figure]) -> str:
    """Lay the figures out in columns; the methods follow, numbered."""
    rows = [
        (
            figure.name,
            _number(figure.value),
            figure.unit,
            figure.aim,
            {None: "", True: "met", False: "MISSED"}[figure.met],
        )
        for figure in figures
    ]
    rows.insert(0, ("what", "value", "unit", "aim", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]

    def line(row: tuple[str, ...]) -> str:
        cells = [
            cell.rjust(width) if column == 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    lines = [line(rows[0]), "  ".join("-" * width for width in widths), *map(line, rows[1:])]
    methods = dict.fromkeys(figure.method for figure in figures)
    by_method = [
        f"- {', '.join(figure.name for figure in figures if figure.method == method)}: {method}"
        for method in methods
    ]
    return "\n".join([*lines, "", "How:", *by_method])


def write_json(
    path: Path, place: Mapping[str, str | int], figures: Sequence[Figure], rounds: Sequence[object]
) -> None:
    """Write everything, with the single rounds behind the medians."""
    document = {
        "machine": place,
        "figures": [dataclasses.asdict(figure) | {"met": figure.met} for figure in figures],
        "rounds": rounds,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
