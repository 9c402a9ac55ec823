"""The ELF container, as far as a loader looks at it: what lies at which address.

Program headers decide; section headers are only a shortcut to well-known tables, and stripped ones are not missed.
Written here and not taken from pyelftools, which serves the tests: sixty bytes of header need no library, and every
count below has a bound before it is used.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from agent.executable.errors import CorruptError, LimitError, NotGoError, UnsupportedError
from agent.executable.relocations import Relocations, find_relocations
from agent.executable.source import Source

MACHINES = {62: "amd64", 183: "arm64"}
"""e_machine to Go's name of the architecture (elf.h: EM_X86_64, EM_AARCH64)."""

_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD, _PT_DYNAMIC, _PT_NOTE = 1, 2, 4
_SHT_NOBITS = 8
_MAX_HEADERS = 1024
_MAX_NOTE_SEGMENTS = 16
_MAX_NOTES = 4096
_CHUNK = 1 << 16
"""Small enough for the allocator to take from its heap: larger ones are mapped anew, and faulted in, each time."""

_MAX_KEPT = 32 << 20
"""The largest range that is kept in memory. The types of the largest program seen have 19 MB."""

_READ_COST = 1024
_MIN_WORK, _WORK_PER_BYTE, _MAX_WORK = 256 << 20, 8, 384 << 20
"""How much of a file may be read: in bytes, each read counted as 1 kB more, which takes about as long.

A plan takes 0.6 times the size of the largest program seen (127 MB), all its structs 2.3 times.
"""


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD segment's part that is in the file. `size` is in bytes."""

    address: int
    size: int
    offset: int
    writable: bool
    executable: bool

    @property
    def end(self) -> int:
        """The first address after the part that is in the file."""
        return self.address + self.size


@dataclass(frozen=True, slots=True)
class Note:
    """An ELF note: owner without its NULs, type number, descriptor."""

    owner: bytes
    kind: int
    descriptor: bytes


class Image:
    """A 64-bit little-endian ELF program for a supported machine; addresses are those the linker gave (no load bias).

    Raises NotGoError if the file is no ELF program, UnsupportedError if it is one for another machine, CorruptError if
    its headers contradict the file.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        header = source.read(0, 64) if source.size >= 64 else b""
        if header[:4] != b"\x7fELF":
            raise NotGoError("is no ELF file")
        if header[4:6] != b"\x02\x01":
            raise UnsupportedError("is no 64-bit little-endian program; only amd64 and arm64 are supported")
        (kind, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx) = (
            struct.unpack_from("<HHIQQQIHHHHHH", header, 16)
        )
        if kind not in (_ET_EXEC, _ET_DYN):
            raise NotGoError("is an ELF file but no program (an object file or a core?)")
        if machine not in MACHINES:
            raise UnsupportedError(f"is for ELF machine {machine}; only amd64 and arm64 are supported")
        self.arch = MACHINES[machine]
        self.pie = kind == _ET_DYN
        self.segments, self._dynamic, self._notes = self._program_headers(phoff, phentsize, phnum)
        self._starts = [segment.address for segment in self.segments]
        self.sections = self._section_headers(shoff, shentsize, shnum, shstrndx)
        self._relocations: Relocations | None = None
        self._kept_at, self._kept = 0, b""
        self._work_left = min(_MIN_WORK + _WORK_PER_BYTE * source.size, _MAX_WORK)
        if self.pie:
            self._relocations = find_relocations(self, self._dynamic)

    def _program_headers(
        self, offset: int, entry: int, count: int
    ) -> tuple[tuple[Segment, ...], tuple[int, int], list[tuple[int, int]]]:
        if entry != 56 or not 0 < count <= _MAX_HEADERS:
            raise CorruptError(f"has {count} program headers of {entry} bytes")
        loads: list[Segment] = []
        dynamic = (0, 0)
        notes: list[tuple[int, int]] = []
        for kind, flags, at, address, _, size, _, _ in struct.iter_unpack(
            "<IIQQQQQQ", self.source.read(offset, entry * count)
        ):
            if kind == _PT_LOAD and size:
                if at + size > self.source.size:
                    raise CorruptError(
                        f"is truncated: its segment at {address:#x} ends at offset {at + size:#x}, "
                        f"the file at {self.source.size:#x}"
                    )
                if address + size >= 1 << 63:
                    raise CorruptError(f"has a segment at {address:#x}, beyond any user address")
                loads.append(Segment(address, size, at, bool(flags & 2), bool(flags & 1)))
            elif kind == _PT_DYNAMIC:
                dynamic = (at, size)
            elif kind == _PT_NOTE and len(notes) < _MAX_NOTE_SEGMENTS:
                notes.append((at, size))
        loads.sort(key=lambda segment: segment.address)
        if any(a.end > b.address for a, b in pairwise(loads)):
            raise CorruptError("has overlapping segments")
        return tuple(loads), dynamic, notes

    def _section_headers(
        self, offset: int, entry: int, count: int, names_index: int
    ) -> Mapping[str, tuple[int, int]]:
        """Name to (address, size) of the sections that are loaded and in the file; empty without a usable table."""
        if not offset or entry != 64 or not names_index < count <= _MAX_HEADERS:
            return {}
        try:
            rows = list(struct.iter_unpack("<IIQQQQIIQQ", self.source.read(offset, entry * count)))
            names = self.source.read(rows[names_index][4], min(rows[names_index][5], 1 << 16))
        except CorruptError:
            return {}
        found: dict[str, tuple[int, int]] = {}
        for name, kind, flags, address, _, size, *_ in rows:
            if flags & 2 and kind != _SHT_NOBITS and self.segment(address, size):
                found.setdefault(names[name : names.find(b"\0", name)].decode("latin-1"), (address, size))
        return found

    def segment(self, address: int, size: int = 1) -> Segment | None:
        """Return the segment that holds `size` bytes at `address` in the file, or None."""
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and size >= 0:
            segment = self.segments[at]
            if address + size <= segment.end:
                return segment
        return None

    def file_offset(self, address: int, size: int = 1) -> int:
        """Where `size` bytes at `address` begin in the file. Raises CorruptError if they are in no segment."""
        segment = self._holder(address, size)
        return address - segment.address + segment.offset

    def _holder(self, address: int, size: int) -> Segment:
        segment = self.segment(address, size)
        if segment is None:
            raise CorruptError(f"{size} bytes at address {address:#x} are in no segment of the file")
        return segment

    def keep(self, start: int, end: int) -> bytes | None:
        """Read [start, end) and keep it, as many small reads will be made there; None if it is large.

        One range at a time. Raises as `read` does.
        """
        if end - start > _MAX_KEPT:
            return None
        if (start, end) != (self._kept_at, self._kept_at + len(self._kept)):
            self._kept = self.read(start, end - start)
            self._kept_at = start
        return self._kept

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes as they are in memory after relocation.

        Raises CorruptError if they are not all in one segment, LimitError if too much of this file was read.
        """
        at = address - self._kept_at
        if at >= 0 and 0 <= size <= len(self._kept) - at:
            self._work(size)
            return self._kept[at : at + size]
        return self._read(self._holder(address, size), address, size)

    def read_up_to(self, address: int, size: int) -> bytes:
        """`size` bytes as `read` gives them, or what is left of the segment. Raises as `read` does."""
        at = address - self._kept_at
        if at >= 0 and 0 <= size <= len(self._kept) - at:
            self._work(size)
            return self._kept[at : at + size]
        segment = self.segment(address)
        if segment is None:
            raise CorruptError(f"address {address:#x} is in no segment of the file")
        return self._read(segment, address, min(size, segment.end - address))

    def _work(self, size: int) -> None:
        self._work_left -= _READ_COST + size
        if self._work_left < 0:
            raise LimitError("is too large or too tangled to be read; was it made to mislead?")

    def _read(self, segment: Segment, address: int, size: int) -> bytes:
        self._work(size)
        data = self.source.read(address - segment.address + segment.offset, size)
        return self._relocations.apply(data, address) if self._relocations is not None else data

    def word(self, address: int) -> int:
        """Return the 8-byte word at `address`. Raises CorruptError."""
        return int.from_bytes(self.read(address, 8), "little")

    def chunks(self, start: int, end: int, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes of [start, end) in pieces of 64 kB, each with its address.

        Each piece reaches `overlap` bytes into the next. Raises CorruptError if the range is not in one segment,
        LimitError if too much of this file was read.
        """
        self.file_offset(start, end - start)
        for address in range(start, end, _CHUNK):
            size = min(_CHUNK + overlap, end - address)
            yield address, self.read(address, size)

    def find(self, pattern: bytes, start: int, end: int, *, align: int = 1) -> Iterator[int]:
        """Addresses in [start, end), multiples of `align`, where `pattern` stands. Raises as `chunks` does."""
        for address, data in self.chunks(start, end, len(pattern) - 1):
            at = data.find(pattern)
            while at >= 0:
                if (address + at) % align == 0:
                    yield address + at
                at = data.find(pattern, at + 1)

    def notes(self) -> Iterator[Note]:
        """Return the notes of the PT_NOTE segments (elf(5): Elf64_Nhdr); a damaged one ends its segment."""
        for offset, size in self._notes:
            if offset + size > self.source.size:
                continue
            data = self.source.read(offset, min(size, _MAX_NOTES))
            at = 0
            while at + 12 <= len(data):
                owner_size, size, kind = struct.unpack_from("<III", data, at)
                body = at + 12 + (owner_size + 3 & ~3)
                if body + size > len(data):
                    break
                owner = data[at + 12 : at + 12 + owner_size].rstrip(b"\0")
                yield Note(owner, kind, data[body : body + size])
                at = body + (size + 3 & ~3)
