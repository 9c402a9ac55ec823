"""Taking a new table: everything that has to be right before it becomes the active one."""

from __future__ import annotations

import hashlib
import time
from datetime import datetime

from agent.offsets.source import Fetched
from agent.offsets.store import Receipt, Store
from agent.offsets.table import MAX_SIZE, Table, TableError, parse
from agent.offsets.trust import PublicKeys, TrustError, verify


class RefusedError(Exception):
    """A table that was fetched isn't taken: the message says why."""


def check(fetched: Fetched, keys: PublicKeys) -> tuple[Table, str]:
    """Give the table and the id of the key that has signed it. Raises RefusedError.

    The signature comes first: nothing is read that nobody answers for.
    """
    if len(fetched.table) > MAX_SIZE:
        raise RefusedError(f"{fetched.origin}: has more than {MAX_SIZE >> 20} MiB, so it is no offset table")
    try:
        key = verify(fetched.table, fetched.signature, keys)
        return parse(fetched.table), key
    except (TrustError, TableError) as error:
        raise RefusedError(f"{fetched.origin}: {error}") from None


def take(
    fetched: Fetched, keys: PublicKeys, store: Store, newest: datetime | None, *, force: bool = False
) -> bool:
    """Install a table; say whether it was another than the one that is installed. Only while the store is locked.

    `newest` is the date of the table in force. Raises RefusedError if the new one isn't in order, or, without `force`,
    if it is older or was rolled back; OSError if it can't be stored.
    """
    table, key = check(fetched, keys)
    receipt = Receipt(fetched.origin, fetched.tag, int(time.time()), key, force)
    if not force:
        if newest is not None and table.generated < newest:
            raise RefusedError(
                f"{fetched.origin}: is of {table.generated:%Y-%m-%d %H:%M}, and the table in force is of"
                f" {newest:%Y-%m-%d %H:%M}; --force takes it all the same"
            )
        if digest(fetched.table) == store.rejected():
            raise RefusedError(
                f"{fetched.origin}: this very table was rolled back; --force takes it all the same"
            )
    if not force and _has(store, fetched):
        return False
    store.install(fetched, receipt)
    store.accept()
    return True


def digest(table: bytes) -> str:
    """The SHA-256 of a table."""
    return hashlib.sha256(table).hexdigest()


def _has(store: Store, fetched: Fetched) -> bool:
    try:
        return store.active.read_bytes() == fetched.table and store.receipt(store.active) is not None
    except OSError:
        return False
