"""The installed tables: the active one and the one before it, replaced in one step that nothing can leave half done.

Below the store's directory, `tables` has a directory for each of the two, with table, signature and receipt; `active`
and `previous` are symbolic links to them. A table is complete and on the disk before the link `active` is renamed to
point to it, so whatever happens, and whenever, a complete table is active. Neither link need be there: then the table
that came with the agent is in force.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.offsets.source import SIGNATURE_NAME, TABLE_NAME, Fetched, read_file

_RECEIPT_NAME = "receipt.json"
_REJECTED_NAME = "rejected"


class StoreError(Exception):
    """The installed tables can't be changed or read: the message says why."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """How a table got here: from where, under which tag (Fetched.tag), when (seconds since 1970), signed by which key,
    and whether somebody insisted on it, older or not.
    """

    origin: str
    tag: str
    installed: int
    key: str
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """The directory of the installed tables. It need not exist until something is installed."""

    root: Path

    @property
    def active(self) -> Path:
        """The active table's file; there may be none."""
        return self.root / "active" / TABLE_NAME

    @property
    def previous(self) -> Path:
        """The file of the table that was active before; there may be none."""
        return self.root / "previous" / TABLE_NAME

    def read(self, path: Path) -> Fetched:
        """Read one of the two, table and signature of the same moment. Raises FetchError if it isn't there."""
        with suppress(OSError):
            path = path.parent.resolve(strict=True) / path.name
        return read_file(path)

    def receipt(self, path: Path) -> Receipt | None:
        """How one of the two got here; None if it isn't there, or doesn't say."""
        try:
            return Receipt(**json.loads(path.with_name(_RECEIPT_NAME).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def rejected(self) -> str:
        """The SHA-256 of the table that was last rolled back, which only somebody who insists on it gets again."""
        try:
            return (self.root / _REJECTED_NAME).read_text().strip()
        except OSError:
            return ""

    def fingerprint(self) -> tuple[int, ...]:
        """What changes whenever another table becomes active; nothing if none is."""
        try:
            status = self.active.stat()
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            return (error.errno or -1,)
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody else from changing the tables. Raises StoreError if somebody is at it already."""
        try:
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"{self.root}: {_why(error)}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise StoreError(f"another update is at work in {self.root}; try again when it is done") from None
        except OSError as error:
            raise StoreError(f"{self.root}: {_why(error)}; the active table is as it was") from None
        finally:
            os.close(lock)

    def install(self, fetched: Fetched, receipt: Receipt) -> None:
        """Make a table active, and the one that is active the previous one. Only while locked; raises OSError."""
        tables = self.root / "tables"
        tables.mkdir(mode=0o755, exist_ok=True)
        self._tidy()
        directory = Path(tempfile.mkdtemp(dir=tables))
        try:
            directory.chmod(0o755)
            _write(directory / TABLE_NAME, fetched.table)
            _write(directory / SIGNATURE_NAME, fetched.signature)
            _write(directory / _RECEIPT_NAME, json.dumps(asdict(receipt)).encode())
            _sync(directory)
            _sync(tables)
            former = self._target("active")
            if former is None:
                self._unlink("previous")
            else:
                self._link("previous", former)
            self._link("active", directory)
        finally:
            self._tidy()

    def rollback(self, rejected: str) -> None:
        """Exchange the active table and the one before it: which is the agent's own, where there was no other.

        `rejected` is the SHA-256 of the table that is given up. Only while locked; raises OSError.
        """
        former, current = self._target("previous"), self._target("active")
        _write(self.root / _REJECTED_NAME, f"{rejected}\n".encode())
        if former is None:
            self._unlink("active")
        else:
            self._link("active", former)
        if current is not None:
            self._link("previous", current)

    def reset(self) -> None:
        """Have no active table: the agent's own is in force. Only while locked; raises OSError."""
        current = self._target("active")
        if current is not None:
            self._link("previous", current)
        self._unlink("active")

    def accept(self) -> None:
        """Forget what was rolled back. Only while locked; raises OSError."""
        self._unlink(_REJECTED_NAME)

    def _target(self, name: str) -> Path | None:
        try:
            return (self.root / name).resolve(strict=True)
        except OSError:
            return None

    def _link(self, name: str, directory: Path) -> None:
        new = self.root / f".{name}"
        new.unlink(missing_ok=True)
        # Both resolved: systemd gives a service with DynamicUser= a link to its directory (systemd.exec(5)).
        new.symlink_to(directory.resolve().relative_to(self.root.resolve()))
        new.replace(self.root / name)
        _sync(self.root)

    def _unlink(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)
        _sync(self.root)

    def _tidy(self) -> None:
        """Remove what nothing points to: older tables, and what an update that was killed has left."""
        used = {self._target("active"), self._target("previous")}
        for directory in (self.root / "tables").iterdir():
            if directory.resolve() not in used:
                shutil.rmtree(directory, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, and on the disk."""
    unfinished = path.with_name(f".{path.name}")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.chmod(0o644)
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: OSError) -> str:
    return (
        "you may not change it, try sudo"
        if isinstance(error, PermissionError)
        else error.strerror or str(error)
    )
