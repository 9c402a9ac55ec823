"""What is in a layer of an image: a file by itself, or a tar archive; as it is, or compressed by gzip or zstd."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Protocol

import zstandard

LAYER_LIMIT = 32 << 20
"""Bytes of a layer that is looked into."""

_UNPACKED_LIMIT = 256 << 20
"""Bytes that a layer may have once it is unpacked."""

_WINDOW_LIMIT = 128 << 20
"""Bytes of memory that a zstd stream may ask for."""


class LayerError(Exception):
    """A layer is damaged, or unpacks to more than it may: the message says which."""


class _Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1, /) -> bytes | None:
        """Give up to `size` bytes, or all."""


class _Limited(io.RawIOBase):
    """A stream that raises LayerError where it has more bytes than a layer may have."""

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream
        self._left = _UNPACKED_LIMIT

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1) or b""
        self._left -= len(data)
        if self._left < 0:
            raise LayerError(f"it unpacks to more than {_UNPACKED_LIMIT >> 20} MiB")
        return data


def files_in(layer: bytes, media_type: str, title: str | None, wanted: Collection[str]) -> dict[str, bytes]:
    """Give the files of these names in a layer, in whatever directory of it they are. Raises LayerError.

    A layer that is no archive is a file of the name `title`.
    """
    try:
        stream = _Limited(_unpacked(layer))
        if "tar" in media_type or "rootfs" in media_type:
            return _in_archive(stream, wanted)
        return {title: stream.read()} if title in wanted and title is not None else {}
    except (tarfile.TarError, zstandard.ZstdError, zlib.error, OSError, EOFError) as error:
        raise LayerError(f"it is damaged: {error}") from None


def _unpacked(layer: bytes) -> _Readable:
    """Undo the compression, which the data themselves tell: media types don't always."""
    if layer.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=io.BytesIO(layer))
    if layer.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).stream_reader(
            io.BytesIO(layer), read_across_frames=True
        )
    return io.BytesIO(layer)


def _in_archive(stream: _Limited, wanted: Collection[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if name in wanted and member.isfile() and member.size <= LAYER_LIMIT:
                file = archive.extractfile(member)
                if file is not None:
                    found[name] = file.read()
    return found
