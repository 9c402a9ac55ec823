"""What it takes to trace a Go library: the words in which each library's module says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.executable.places import At

if TYPE_CHECKING:
    from agent.spans.records import EncoderFactory


CALLS = " calls "
"""Between two functions, this names the place at which the first one, and only there, calls the second one."""

WITHOUT = " without "
"""Between two functions, this names the place at which the first one gives up as its only call of the second one has
failed.
"""

ARGUMENT = " argument "
"""Between a function and a number, this names the place on the stack where the function keeps that argument: the first
word of what it is given in registers is number 1.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A BPF program, and the function that it is attached to.

    `symbols` are the linker's names of that function, one for each time it was renamed: all that an executable has
    are probed, vendored copies too. `gives` is what it is good for, in the words of a user. Where an executable has
    none of the functions that may be no loss; where it is one, `absent` says why.

    `at` is when it runs. With "call" that is when the function calls one of `calls`, with their arguments; with "after"
    it is when it has their results, or, where its code has no cheap place for that, when they return; with
    "failure" it is when it gives up because of them, which costs the calls that succeed nothing. With "tail" it
    is when the function returns what its last call has returned, as it is. With "work" a call that a first test lets
    return at once is left out where the code allows it.
    """

    program: str
    symbols: tuple[str, ...]
    gives: str
    at: At = "entry"
    calls: tuple[str, ...] = ()
    required: bool = False
    absent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """Something that spans tell, and the fields that it is read from.

    `fields` are alternatives, each a set that does together; where an executable has none of them complete the
    feature is off. `since` says which versions have the fields. A feature `of` a program or of a function
    matters only where that program is attached, or where that function is probed.
    """

    what: str
    fields: tuple[tuple[str, ...], ...]
    required: bool = False
    since: str = ""
    of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitute:
    """Another library, one layer below, that tells of all that this one would: then this one's probes are left out.

    That is so where `programs` of `library`, a name, are attached, the executable has `fields`, and all types that are
    wrapped in `interface` are among `types`, both by their full names. Programs in `but` stay: they tell what the other
    library never comes to hear of.
    """

    library: str
    programs: tuple[str, ...]
    interface: str
    types: tuple[str, ...]
    fields: tuple[str, ...]
    but: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A Go library that can be traced.

    `name` is what configuration and output call it; `module` the module that it belongs to, empty for the standard
    library, and `former_modules` those of its other major versions. `object` is its BPF object: bpf/<object>.bpf.c.
    `records` make spans from each of the object's record structs, by the struct's name. `schema_url` names the
    conventions that its spans follow. Where `only_with` names functions, an executable has to contain one of them.
    Where there is a `substitute`, it is preferred. `not_on` names architectures on which it can't be, each with the
    reason.
    """

    name: str
    object: str
    probes: tuple[Probe, ...]
    features: tuple[Feature, ...]
    records: Mapping[str, EncoderFactory]
    module: str = ""
    former_modules: tuple[str, ...] = ()
    schema_url: str = ""
    only_with: tuple[str, ...] = ()
    substitute: Substitute | None = None
    not_on: Mapping[str, str] = field(default_factory=dict)
