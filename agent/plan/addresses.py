"""What layouts want besides offsets: where code, itabs and kept arguments are, and how long arrays."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from agent.executable import Executable, Function, NoPlaceError, types_of
from agent.kernel.formats import Format
from agent.libraries.library import ARGUMENT, CALLS, WITHOUT
from agent.plan.tags import ARRAY_TAG, FAILURE_TAG, ITAB_TAG, KEPT_TAG, PLACE_TAG, tags_of


def addresses_of(
    executable: Executable, functions: Mapping[str, tuple[Function, ...]], layouts: Iterable[Format]
) -> dict[str, int]:
    """What layouts want besides offsets: addresses of itabs, and of the probes of functions that there is one of; where
    such functions give up, and where they keep their arguments; how long arrays are.
    """
    found: dict[str, int] = {}
    itabs = tags_of(layouts, ITAB_TAG)
    if itabs:
        interfaces = {name.partition(" as ")[2] for name in itabs}
        found = {
            name: address
            for address, itab in executable.itabs(interfaces).items()
            if (name := f"{itab.type} as {itab.interface}") in itabs
        }
    for symbol in tags_of(layouts, PLACE_TAG):
        with suppress(NoPlaceError, ValueError):
            name, _, callee = symbol.partition(CALLS)
            (function,) = functions.get(name, ())
            if callee:
                (place,) = executable.call_places(function, functions.get(callee, ()))
            else:
                place = executable.entry_place(function)
            found[symbol] = place.address
    code = min(one.address for one in executable.segments if one.executable)
    for symbol in tags_of(layouts, FAILURE_TAG):
        with suppress(NoPlaceError, ValueError):
            name, _, callee = symbol.partition(WITHOUT)
            (function,) = functions.get(name, ())
            (place,) = executable.failure_places(function, functions.get(callee, ()))
            found[symbol] = place.address - code
    found |= _kept_arguments(executable, functions, tags_of(layouts, KEPT_TAG))
    return found | _array_lengths(executable, tags_of(layouts, ARRAY_TAG))


def _kept_arguments(
    executable: Executable, functions: Mapping[str, tuple[Function, ...]], names: Collection[str]
) -> dict[str, int]:
    """How far from the stack pointer functions keep these arguments, by what _pack calls them."""
    found: dict[str, int] = {}
    for symbol in sorted({name.partition(ARGUMENT)[0] for name in names}):
        with suppress(NoPlaceError, ValueError):
            (function,) = functions.get(symbol, ())
            kept = executable.kept_arguments(function)
            found |= {f"{symbol}{ARGUMENT}{number}": at for number, at in kept.items()}
    return {name: at for name, at in found.items() if name in names}


def _array_lengths(executable: Executable, names: Collection[str]) -> dict[str, int]:
    """How many elements the arrays have that these fields point to, by what _pack calls them."""
    found: dict[str, int] = {}
    for type_name, struct in (executable.structs(types_of(names)) if names else {}).items():
        for name in names:
            field = struct.fields.get(name.removeprefix(f"{type_name}."))
            length = re.match(r"\*\[(\d+)\]", field.type) if field else None
            if length:
                found[f"length of {name}"] = int(length[1])
    return found
