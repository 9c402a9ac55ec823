"""The declaration tags by which the members of layouts say what they want to be told (bpf/go.h)."""

from __future__ import annotations

from collections.abc import Iterable

from agent.kernel.formats import Format

LAYOUT_SUFFIX = "_layout"
"""Structs of this name hold offsets; one `<name>s` is the map that takes them, an entry an executable."""

FIELD_TAG = "go:"
"""Declaration tag of a layout's member: the Go field whose offset it takes."""

MAP_TAG = "go-map:"
"""Declaration tag of a layout's member: a map type and, behind a colon, the part of its geometry that it takes."""

ADDRESS_TAG = "go-address:"
"""Declaration tag of a layout's member that takes the distance of something from the start of the code."""

TYPE_TAG = "go-type:"
"""Declaration tag of a layout's member: a type, and the member takes where it is described."""

EXACT_TAG = "go-exact:"
"""The same as FIELD_TAG, but only an offset of this very version will do (Resolution.writable)."""

ITAB_TAG = "go-itab:"
"""Declaration tag of a layout's member: a type and an interface, `*bufio.Writer as io.Writer`, whose itab's address it
takes."""

PLACE_TAG = "go-place:"
"""Declaration tag of a layout's member: the function whose probe's address it takes, or, with CALLS, that of a probe on
a function's only call of another one.
"""

FAILURE_TAG = "go-failure:"
"""Declaration tag of a layout's member: two functions with WITHOUT between them, of which it takes how far from the
start of the code the first one gives up because its only call of the second one has failed.
"""

KEPT_TAG = "go-kept:"
"""Declaration tag of a layout's member: a function and the number of one of its arguments, `f argument 1`, of which it
takes how far from the stack pointer the function keeps it.
"""

ARRAY_TAG = "go-array:length of "
"""Declaration tag of a layout's member: a field that points to an array, of which it takes the number of elements."""

WHOLE_TAGS = (ADDRESS_TAG, EXACT_TAG)
"""Tags that values go by as they are; by the others go what they name."""


def tags_of(formats: Iterable[Format], prefix: str) -> set[str]:
    """What the members of layouts want that have a tag of this kind: the tags, without the prefix."""
    return {
        tag.removeprefix(prefix)
        for layout in formats
        for field in layout.fields
        for tag in field.tags
        if tag.startswith(prefix)
    }
