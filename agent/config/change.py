"""From one configuration to the next while the agent runs: what can be applied, and what waits for a restart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from agent.config.load import Config
from agent.config.settings import attribute, settings


@dataclass(frozen=True, slots=True)
class Change:
    """What a new configuration changes, by dotted names.

    `config` is what is in force then: the new one, but with the former values of what is `postponed` until the next
    start.
    """

    config: Config
    applied: tuple[str, ...]
    postponed: tuple[str, ...]

    def __str__(self) -> str:
        parts = []
        if self.applied:
            parts.append(f"changed {', '.join(self.applied)}")
        if self.postponed:
            parts.append(f"{', '.join(self.postponed)} will change at the next start")
        return "; ".join(parts) or "nothing has changed"


def change(old: Config, new: Config) -> Change:
    """Compare the configuration in force with a new one."""
    applied: list[str] = []
    postponed: list[str] = []
    kept: dict[str, dict[str, object]] = {}
    for setting in settings():
        before = setting.of(old)
        if before == setting.of(new):
            continue
        if setting.info.restart:
            postponed.append(setting.path)
            kept.setdefault(setting.section, {})[setting.name] = before
        else:
            applied.append(setting.path)
    sections: dict[str, Any] = {
        attribute(name): replace(getattr(new, attribute(name)), **values) for name, values in kept.items()
    }
    places = dict(new.places)
    for path in postponed:
        places.pop(path, None)
        if path in old.places:
            places[path] = old.places[path]
    return Change(replace(new, **sections, places=places), tuple(applied), tuple(postponed))
