"""Who may make offset tables: detached Ed25519 signatures, and the public keys that are trusted.

A signature file has a line for each signature: the key's id and the signature of the table's bytes in base64 (RFC 8032,
RFC 4648). Several lines let a key be replaced without a gap: a table is good if one trusted key has signed it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from agent.offsets.source import MAX_SIGNATURE_FILE

_MAX_KEY_FILE = 64 << 10

_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\s*", re.DOTALL)

PublicKeys = Mapping[str, Ed25519PublicKey]
"""Public keys by their ids."""


class TrustError(Exception):
    """A table, a signature or a key can't be trusted: the message says which and why."""


def key_id(key: Ed25519PublicKey) -> str:
    """Name a key: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def load_public_keys(paths: Iterable[Path]) -> PublicKeys:
    """Read files of one or more public keys each (PEM, SubjectPublicKeyInfo). Raises TrustError."""
    found: dict[str, Ed25519PublicKey] = {}
    for path in paths:
        blocks = _PEM.findall(_read(path))
        if not blocks:
            raise TrustError(f"{path} has no public key (PEM, `BEGIN PUBLIC KEY`)")
        for block in blocks:
            try:
                key = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm) as error:
                raise TrustError(f"{path} has a damaged public key: {error}") from None
            if not isinstance(key, Ed25519PublicKey):
                raise TrustError(f"{path} has a key of another kind than Ed25519")
            found[key_id(key)] = key
    return found


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs (PEM, PKCS #8, without a passphrase). Raises TrustError."""
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TrustError(
            f"{path} is no private key (PEM, without a passphrase); `openssl genpkey -algorithm ed25519` makes one"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise TrustError(f"{path} is a key of another kind than Ed25519")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_FILE)
    except OSError as error:
        raise TrustError(f"{path} can't be read: {error.strerror}") from None


def sign(data: bytes, keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """Make a signature file of a table's bytes, with a line for each key."""
    lines = (
        f"{key_id(key.public_key())} {base64.b64encode(key.sign(data)).decode('ascii')}\n" for key in keys
    )
    return "".join(lines).encode("ascii")


def verify(data: bytes, signatures: bytes, keys: PublicKeys) -> str:
    """Give the id of a trusted key that has signed `data`. Raises TrustError if none has."""
    if not keys:
        raise TrustError("no public key is trusted, so no table can be")
    if len(signatures) > MAX_SIGNATURE_FILE:
        raise TrustError(f"the signature has more than {MAX_SIGNATURE_FILE >> 10} KiB, so it is none")
    named: list[str] = []
    for line in signatures.decode("ascii", "replace").splitlines():
        name, _, text = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        named.append(name[:16])
        if name not in keys:
            continue
        try:
            keys[name].verify(base64.b64decode(text, validate=True), data)
        except (InvalidSignature, binascii.Error, ValueError):
            raise TrustError(
                f"the signature of key {name} is wrong: the table was changed, or cut off"
            ) from None
        return name
    trusted = ", ".join(keys)
    if not named:
        raise TrustError("the signature is empty or no signature at all")
    raise TrustError(f"it is signed by {', '.join(named[:4])!a} and not by a trusted key ({trusted})")
