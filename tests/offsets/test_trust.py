"""Signatures, by our own code and by OpenSSL's."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from agent.offsets import active
from agent.offsets.trust import TrustError, load_private_key, load_public_keys, sign, verify
from tests.support.authority import make_signing_key

DATA = b'{"schema": 1}\n'


def test_a_signature_is_good_for_these_bytes_and_this_key(tmp_path: Path) -> None:
    private, public = make_signing_key(tmp_path, "one")
    signature = sign(DATA, [load_private_key(private)])
    keys = load_public_keys([public])
    assert verify(DATA, signature, keys) == next(iter(keys))
    with pytest.raises(TrustError, match="the table was changed, or cut off"):
        verify(DATA + b" ", signature, keys)


def test_openssl_agrees(tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True
    )
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    line = sign(DATA, [load_private_key(private)]).split()
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "signature").write_bytes(base64.b64decode(line[1]))
    command: list[str | Path] = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        public,
        "-rawin",
        "-in",
        tmp_path / "data",
    ]
    subprocess.run([*command, "-sigfile", tmp_path / "signature"], check=True, capture_output=True)
    assert list(load_public_keys([public])) == [line[0].decode()]


def test_keys_are_replaced_without_a_gap(tmp_path: Path) -> None:
    """Signed by both, the old and the new; several keys in one file."""
    pairs = [make_signing_key(tmp_path, name) for name in ("old", "new")]
    both = sign(DATA, [load_private_key(private) for private, _ in pairs])
    for _, public in pairs:
        assert verify(DATA, both, load_public_keys([public]))
    joined = tmp_path / "joined.pem"
    joined.write_bytes(b"".join(public.read_bytes() for _, public in pairs))
    assert len(load_public_keys([joined])) == 2


@pytest.mark.parametrize("signature", [b"", b"# nothing\n", b"\xff\xfe", b"x" * (17 << 10)])
def test_what_is_no_signature(signature: bytes, tmp_path: Path) -> None:
    _, public = make_signing_key(tmp_path, "one")
    with pytest.raises(TrustError):
        verify(DATA, signature, load_public_keys([public]))


def test_a_signature_of_somebody_else(tmp_path: Path) -> None:
    _, public = make_signing_key(tmp_path, "one")
    other, _ = make_signing_key(tmp_path, "other")
    with pytest.raises(TrustError, match="and not by a trusted key"):
        verify(DATA, sign(DATA, [load_private_key(other)]), load_public_keys([public]))
    with pytest.raises(TrustError, match="no public key is trusted"):
        verify(DATA, b"", {})


def test_files_that_are_no_keys(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("nothing")
    with pytest.raises(TrustError, match="has no public key"):
        load_public_keys([file])
    with pytest.raises(TrustError, match="is no private key"):
        load_private_key(file)
    with pytest.raises(TrustError, match="can't be read: No such file"):
        load_public_keys([tmp_path / "missing"])
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "X25519", "-out", file], check=True, capture_output=True
    )
    with pytest.raises(TrustError, match="of another kind than Ed25519"):
        load_private_key(file)


def test_the_keys_that_come_along_are_keys() -> None:
    assert len(load_public_keys(active._KEYS.glob("*.pem"))) >= 1
