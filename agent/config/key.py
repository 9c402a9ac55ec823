"""How a setting is declared: with its kind, default and meaning, as the metadata of a dataclass's field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from agent.config.values import Kind

T = TypeVar("T")

METADATA = "gospan"
"""Where a field's metadata has its KeyInfo."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What is known of one setting besides its name: kind, meaning, whether its value is a secret.

    `restart` says that a change of it waits for the agent's next start; all others are applied by a reload.
    """

    kind: Kind[Any]
    doc: str
    secret: bool = False
    restart: bool = False


def key(default: T, kind: Kind[T], doc: str, *, secret: bool = False, restart: bool = False) -> T:
    """Declare a setting; `doc` is a sentence, shown in the reference and in the default file."""
    declared: T = field(default=default, metadata={METADATA: KeyInfo(kind, doc, secret, restart)})
    return declared
