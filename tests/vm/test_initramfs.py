import gzip
import stat

from tests.vm.initramfs import Entry, compress, cpio, directory


def _unpacked(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Names, modes and contents in a newc archive, by the offsets of the kernel's documentation."""
    entries: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        field = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = field[1], field[6], field[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = (at + 110 + name_size + 3) & ~3
        content = archive[start : start + size]
        assert len(content) == size
        if name == b"TRAILER!!!\0":
            return entries
        entries.append((name[:-1].decode(), mode, content))
        at = (start + size + 3) & ~3


def test_an_archive_holds_what_was_put_in_whatever_the_lengths() -> None:
    files = [Entry("f" * length, b"x" * (7 - length)) for length in range(1, 8)]
    archive = cpio([directory("guest"), *files])
    assert len(archive) % 4 == 0
    assert _unpacked(archive) == [
        ("guest", stat.S_IFDIR | 0o755, b""),
        *((file.path, stat.S_IFREG | 0o755, file.content) for file in files),
    ]


def test_it_is_compressed_as_gzip() -> None:
    archive = cpio([Entry("init", b"#!/busybox sh\n")])
    assert gzip.decompress(compress(archive)) == archive
