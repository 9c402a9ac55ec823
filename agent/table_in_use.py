"""The offset table that a running daemon goes by, until another one is in force."""

from __future__ import annotations

from agent.config import Config
from agent.log import Logger
from agent.offsets.active import tables_of
from agent.offsets.resolve import Resolver
from agent.status.report import OffsetTable


class TableInUse:
    """Reads the table in force, and what is wrong with others that would have gone before it."""

    def __init__(self, config: Config, log: Logger) -> None:
        self._log = log
        self._fingerprint = tables_of(config).fingerprint()
        self.resolver = Resolver(None)
        """Resolves by type information, and by the table where it can be used."""
        self.described = self._read(config)
        """What is told of it."""

    def renew(self, config: Config) -> bool:
        """Go by another table if one has been installed, or taken back; say whether."""
        now = tables_of(config).fingerprint()
        if now == self._fingerprint:
            return False
        self._fingerprint = now
        self.described = self._read(config)
        return True

    def _read(self, config: Config) -> OffsetTable:
        found = tables_of(config).in_force()
        for complaint in found.complaints:
            self._log.warning("an offset table can't be used", reason=complaint)
        if found.table is None:
            self._log.warning("there is no offset table: what type information lacks is off")
        generated = found.table.generated if found.table else None
        self.resolver = Resolver(found.table)
        return OffsetTable(found.path, generated, "; ".join(found.complaints))
