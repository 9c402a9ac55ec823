"""Where the probes of a library go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.executable import Executable, Function, NoPlaceError, Place
from agent.libraries import Probe


def places_of(
    probe: Probe, executable: Executable, functions: Mapping[str, tuple[Function, ...]]
) -> tuple[list[Place], str]:
    """Where a probe goes, and the reason if that is nowhere and anything is lost by it."""
    found, callees = (
        [function for symbol in symbols for function in functions.get(symbol, ())]
        for symbols in (probe.symbols, probe.calls)
    )
    if not found or (probe.calls and not callees):
        if probe.required or probe.absent:
            missing = probe.calls if found else probe.symbols
            reason = f": {probe.absent}" if probe.absent else ""
            return [], f"the executable has no function {missing[0]}{reason}"
        return [], ""
    places: list[Place] = []
    reasons: list[str] = []
    for function in found:
        try:
            match probe.at:
                case "entry":
                    places.append(executable.entry_place(function))
                case "return":
                    places += executable.return_places(function)
                case "call":
                    places += executable.call_places(function, callees)
                case "work":
                    places.append(executable.work_place(function))
                case "tail":
                    places += executable.tail_places(function)
                case "failure":
                    places += executable.failure_places(function, callees)
                case "after":
                    places += executable.after_call_places(function, callees)
        except NoPlaceError as error:
            if probe.at == "after":
                return _returns(callees, executable)
            reasons.append(f"no safe place for a probe: {error.what}")
    if probe.calls and not places and not reasons:
        unlike = (
            "does something else where it can't" if probe.at == "failure" else "the compiler has inlined it"
        )
        reasons.append(f"{probe.symbols[0]} doesn't call {probe.calls[0]}: {unlike}")
    return places, "; ".join(reasons)


def _returns(functions: Iterable[Function], executable: Executable) -> tuple[list[Place], str]:
    """Every return of some functions, and why one of them has no place for a probe."""
    places: list[Place] = []
    try:
        for function in functions:
            places += executable.return_places(function)
    except NoPlaceError as error:
        return places, f"no safe place for a probe: {error.what}"
    return places, ""
