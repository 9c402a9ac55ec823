"""Which table is in force: the one an update has installed, or the one that came with the agent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.config import Config
from agent.offsets.source import FetchError
from agent.offsets.store import Receipt, Store
from agent.offsets.table import Table, TableError, load, parse
from agent.paths import packaged_offsets

_KEYS = Path(__file__).resolve().parent / "keys"


@dataclass(frozen=True, slots=True)
class InForce:
    """The table that is in force, its file, how it got there if an update has installed it, and what is wrong with
    others that would have gone before it. No table at all is possible.
    """

    table: Table | None
    path: Path
    receipt: Receipt | None = None
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tables:
    """Where the tables are: the agent's own and, if updates are heeded, the installed ones.

    `public_keys` are files of the keys that installed tables must be signed with. They are looked at anew each time a
    table is read: who installs tables has fewer rights than who reads them.
    """

    own: Path
    store: Store | None = None
    public_keys: tuple[Path, ...] = ()

    def in_force(self) -> InForce:
        """Find and read the table in force.

        That is the newest of the two by its date, so that a new release of the agent isn't held back by an old update;
        or the installed one if somebody insisted on it.
        """
        complaints: list[str] = []
        own: Table | None = None
        try:
            own = load(self.own)
        except TableError as error:
            complaints.append(str(error))
        installed = self._installed(complaints)
        if installed is not None and installed.table is not None:
            forced = installed.receipt is not None and installed.receipt.forced
            if own is None or forced or installed.table.generated >= own.generated:
                return InForce(installed.table, installed.path, installed.receipt, tuple(complaints))
        return InForce(own, self.own, None, tuple(complaints))

    def fingerprint(self) -> tuple[object, ...]:
        """What changes whenever another table is in force, or another file in its place."""
        own: tuple[int, ...] = ()
        try:
            status = self.own.stat()
            own = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        except OSError:
            pass
        return own, self.store.fingerprint() if self.store else ()

    def _installed(self, complaints: list[str]) -> InForce | None:
        if self.store is None or not self.store.fingerprint():
            return None
        # It brings a library along that nobody needs who has no installed table.
        from agent.offsets.trust import TrustError, load_public_keys, verify

        path = self.store.active
        try:
            fetched = self.store.read(path)
            verify(fetched.table, fetched.signature, load_public_keys(self.public_keys))
            return InForce(parse(fetched.table), path, self.store.receipt(path))
        except FetchError as error:
            complaints.append(str(error))
        except (TrustError, TableError) as error:
            complaints.append(f"{path}: {error}")
        return None


def credential(given: str, name: str) -> str:
    """A file that was configured, else the systemd credential of that name (systemd.exec(5)), else nothing."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(directory, name) if directory and not given else None
    return str(path) if path is not None and path.exists() else given


def public_keys(config: Config) -> tuple[Path, ...]:
    """The files of the keys that installed tables must be signed with."""
    given = credential(config.offsets_update.public_key, "offsets-public-key")
    return (Path(given),) if given else tuple(sorted(_KEYS.glob("*.pem")))


def tables_of(config: Config) -> Tables:
    """Where the tables are by the configuration."""
    if config.offsets.file:
        return Tables(Path(config.offsets.file))
    return Tables(packaged_offsets(), Store(Path(config.offsets.directory)), public_keys(config))
