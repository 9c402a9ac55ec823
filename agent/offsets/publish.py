"""What someone who runs a mirror puts up: a table, its signature, and an image with both for registries.

The image is an OCI image layout (image-spec 1.1, image-layout.md), a directory that any registry tool can push. The
same table and key make the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import zstandard

from agent.offsets.source import SIGNATURE_NAME, TABLE_NAME
from agent.offsets.table import Table

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"


class Compression(Enum):
    """How the image's layer is compressed; every registry and tool knows gzip."""

    GZIP = "gzip"
    ZSTD = "zstd"


def publish(
    table: Table, data: bytes, signature: bytes, directory: Path, compression: Compression, tag: str
) -> None:
    """Write table, signature and image into a directory, which is made. Raises OSError.

    `data` are the bytes of `table`, `signature` those of its signature file.
    """
    layout = directory / "image"
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    _write(directory / TABLE_NAME, data)
    _write(directory / SIGNATURE_NAME, signature)
    time = int(table.generated.timestamp())
    archive = _archive({TABLE_NAME: data, SIGNATURE_NAME: signature}, time)
    layer = _compress(archive, compression)
    created = f"{table.generated:%Y-%m-%dT%H:%M:%SZ}"
    config = {
        "created": created,
        # An image has one, though a table is the same for all.
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [_digest(archive)]},
        "history": [{"created": created, "created_by": "gospan offsets publish"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _blob(layout, _json(config), _CONFIG),
        "layers": [_blob(layout, layer, f"application/vnd.oci.image.layer.v1.tar+{compression.value}")],
        "annotations": {
            "org.opencontainers.image.created": created,
            "org.opencontainers.image.title": "gospan offset table",
        },
    }
    described = _blob(layout, _json(manifest), _MANIFEST)
    described["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]}
    _write(layout / "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
    # Last: what it refers to is there.
    _write(layout / "index.json", _json(index))


def _archive(files: Mapping[str, bytes], time: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(data), time, 0o644
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _compress(data: bytes, compression: Compression) -> bytes:
    if compression is Compression.ZSTD:
        compressed: bytes = zstandard.ZstdCompressor(level=19).compress(data)
        return compressed
    return gzip.compress(data, compresslevel=9, mtime=0)


def _blob(layout: Path, data: bytes, media_type: str) -> dict[str, Any]:
    """Store a blob, and give its descriptor."""
    digest = _digest(data)
    _write(layout / "blobs" / "sha256" / digest.partition(":")[2], data)
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(data)
    unfinished.replace(path)
