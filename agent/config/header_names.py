"""Lists of HTTP headers: the names that a user wants to see in spans."""

from __future__ import annotations

import re

from agent.config.values import checked_words

NAME_MAX = 48
"""Bytes that a name may have: WANTED_NAME_MAX of bpf/header_sets.h."""

NAMES_MAX = 32
"""Names in a list: each costs what it takes to read it, in every request."""

_NAME = re.compile(r"[0-9a-z_.-]+")


def _checked(words: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(word.lower() for word in words))
    for name in names:
        if "*" in name or "?" in name:
            raise ValueError(
                f"{name!r} is a pattern: headers are named one by one, so that none comes along by chance"
            )
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} isn't a header's name (letters, digits, - _ .)")
        if len(name) > NAME_MAX:
            raise ValueError(f"{name!r} is too long: names may have {NAME_MAX} characters")
    if len(names) > NAMES_MAX:
        raise ValueError(f"names {len(names)} headers; {NAMES_MAX} are possible")
    return names


HEADER_NAMES = checked_words("list of headers", _checked)
"""Names in lower case, each once. Raises ValueError for what is none, or can't be looked for."""
