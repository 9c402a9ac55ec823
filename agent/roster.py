"""What the kernel is told: what to do with new processes of a file, and which processes the programs listen to.

These are the maps `files` and `processes` of bpf/process.bpf.c. The programs write to them as well: the kernel adds a
process of a file that is traced when it starts, and takes each away when it ends.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from agent.discovery.headers import WantedHeaders
from agent.discovery.processes import FileIdentity
from agent.discovery.selection import Choice
from agent.header_sets import HeaderSets
from agent.kernel.errors import KernelError
from agent.kernel.maps import Replace
from agent.kernel.programs import Programs
from agent.sampling import encode_sampler


class Roster:
    """The two maps. Methods raise KernelError if the kernel refuses; a key is a `struct file_key` in bytes."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._files = programs.map("files")
        self._processes = programs.map("processes")
        self._file_key = programs.format("file_key")
        self._file_entry = programs.format("file_entry")
        self._process = programs.format("process")
        self._header_sets = HeaderSets(programs)
        self._last_number = 0

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return self._file_key.size

    def key_of(self, file: FileIdentity) -> bytes:
        """Name a file as the kernel does (dev_t: include/linux/kdev_t.h), which stat(2) encodes otherwise.

        Where a file system shows the two with different numbers, as overlayfs may, the key is learned from the first
        exec event.
        """
        device = os.major(file.device) << 20 | os.minor(file.device)
        return self._file_key.pack({"inode": file.inode, "size": file.size, "device": device})

    def is_key_of(self, key: bytes, file: FileIdentity) -> bool:
        """Whether the kernel may call this file so: its file system may show other numbers than the kernel has."""
        ours = self._file_key.unpack(self.key_of(file))
        theirs = self._file_key.unpack(key)
        return ours["size"] == theirs["size"] and (
            ours["inode"] == theirs["inode"] or ours["device"] != theirs["device"]
        )

    def ignore_file(self, key: bytes) -> None:
        """Have new processes of a file started without a word."""
        self._files.update(key, self._entry("FILE_IGNORED"))

    def ask_about_file(self, key: bytes) -> None:
        """Have new processes of a file reported, and not listened to until they are entered."""
        self._files.update(key, self._entry("FILE_ASK"))

    def trace_file(self, key: bytes, slot: int, choice: Choice) -> None:
        """Have new processes of a file listened to from their first instruction on."""
        self._files.update(key, self._entry("FILE_TRACED", self._values(slot, choice)))

    def forget_file(self, key: bytes) -> None:
        """Have new processes of a file reported as those of an unknown one are."""
        self._files.delete(key)

    def forget_ignored_files(self) -> None:
        """Forget all files that were to be ignored."""
        ignored = self._programs.constant("FILE_IGNORED")
        for key, entry in list(self._files.items()):
            if self._file_entry.unpack(entry)["verdict"] == ignored:
                self._files.delete(key)

    def keep_headers(self, wanted: Iterable[WantedHeaders]) -> None:
        """Forget which headers spans were to have, but for these: no process or file is entered with others."""
        self._header_sets.keep(wanted)

    def enter(self, pid: int, slot: int, choice: Choice) -> int:
        """Have the programs listen to a process, and give its number; the kernel's, if that was faster."""
        number = self._last_number = max(time.monotonic_ns(), self._last_number + 1)
        entry = self._process.pack(self._values(slot, choice) | {"id": number})
        try:
            self._processes.update(_pid_key(pid), entry, Replace.ADD)
        except KernelError as error:
            if error.errno != errno.EEXIST:
                raise
            if known := self.number_of(pid, slot):
                self.change(pid, slot, choice, known)
                return known
            self._processes.update(_pid_key(pid), entry)
            self._programs.processes_changed()
        return number

    def change(self, pid: int, slot: int, choice: Choice, number: int) -> None:
        """Change what the programs know of a process that they listen to, if they still do."""
        entry = self._process.pack(self._values(slot, choice) | {"id": number})
        with suppress(KernelError):
            self._processes.update(_pid_key(pid), entry, Replace.CHANGE)
            self._programs.processes_changed()

    def strike(self, pid: int) -> None:
        """Have the programs listen to a process no more."""
        if self._processes.delete(_pid_key(pid)):
            self._programs.processes_changed()

    def number_of(self, pid: int, slot: int | None = None) -> int:
        """The number by which the kernel traces a process, as the executable in `slot` if given; 0 if it doesn't."""
        entry = self._processes.lookup(_pid_key(pid))
        if entry is None:
            return 0
        values = self._process.unpack(entry)
        return int(values["id"]) if slot is None or values["slot"] == slot else 0

    def _entry(self, verdict: str, process: Mapping[str, int] = MappingProxyType({})) -> bytes:
        values = {f"process.{name}": value for name, value in process.items()}
        return self._file_entry.pack(values | {"verdict": self._programs.constant(verdict)})

    def _values(self, slot: int, choice: Choice) -> dict[str, int]:
        bits = self._programs.library_bits
        return {
            "slot": slot,
            "wanted": 1,
            "headers": self._header_sets.number_of(choice.headers),
            "libraries_off": sum(bits[name] for name in choice.libraries_off if name in bits),
            **encode_sampler(choice.sampling, self._programs.constant),
        }


def _pid_key(pid: int) -> bytes:
    return pid.to_bytes(4, "little")
