"""Each setting by its place: what the schema's dataclasses declare, as the files, the environment and flags name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from agent.config.key import METADATA, KeyInfo
from agent.config.schema import Settings


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting with its place: `export.timeout`."""

    section: str
    name: str
    default: object
    info: KeyInfo

    @property
    def path(self) -> str:
        """The dotted name, as messages and flags use it."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"GOSPAN_{self.section}_{self.name}".replace(".", "_").upper()

    def of(self, config: Settings) -> object:
        """Give its value."""
        value: object = getattr(getattr(config, attribute(self.section)), self.name)
        return value


SECTIONS: dict[str, type[Any]] = {
    item.name.replace("_", "."): type(getattr(Settings(), item.name)) for item in fields(Settings)
}


def attribute(section: str) -> str:
    """What a section is called in Settings."""
    return section.replace(".", "_")


def settings() -> Iterator[Setting]:
    """Give every setting, in the order of the reference."""
    for section, cls in SECTIONS.items():
        for item in fields(cls):
            yield Setting(section, item.name, item.default, item.metadata[METADATA])


BY_PATH: dict[str, Setting] = {setting.path: setting for setting in settings()}
