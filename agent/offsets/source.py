"""Where an update comes from: what each source gives, and how one that fails says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.offsets.table import MAX_SIZE

# Not beside what verifies signatures: that takes 10 MB, which the daemon does without where there is no update.
MAX_SIGNATURE_FILE = 16 << 10
TABLE_NAME = "offsets.json"
SIGNATURE_NAME = "offsets.json.sig"


class FetchError(Exception):
    """An update can't be had: the message names the place, what is wrong and, if there is one, the remedy."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of a table and of its signature file, unchecked, and where they come from.

    `tag` is what the source calls this very version of the table: an ETag, or the digest of an image's manifest.
    """

    table: bytes
    signature: bytes
    origin: str
    tag: str = ""


def read_file(path: Path) -> Fetched:
    """Read a table and the signature beside it, of the same name with `.sig` behind. Raises FetchError."""
    return Fetched(
        _read(path, MAX_SIZE), _read(path.with_name(f"{path.name}.sig"), MAX_SIGNATURE_FILE), str(path)
    )


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FetchError(f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise FetchError(f"{path}: is larger than {limit >> 10} KiB, so it isn't what it should be")
    return data
