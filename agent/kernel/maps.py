"""A BPF map in the kernel: its elements, one by one or in batches."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.kernel import libbpf
from agent.kernel.errors import ENOTSUPP, KernelError


class MapType(enum.IntEnum):
    """The types of maps that gospan uses: enum bpf_map_type."""

    HASH = 1
    ARRAY = 2
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    RINGBUF = 27


_PER_CPU = frozenset((MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH))
_NO_BATCH = frozenset((errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP))
"""How kernels say that they have no batch calls: before 5.6 altogether, later for some types of maps."""
_BATCH = 256


class Replace(enum.IntEnum):
    """What an update may do: BPF_ANY, BPF_NOEXIST, BPF_EXIST."""

    ANY = 0
    ADD = 1
    CHANGE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Map:
    """A map by its descriptor, which its object owns; sizes in bytes, `value_size` for one processor.

    Keys and values are bytes. The value of a per-CPU map is that of all possible processors in a row, each
    padded to 8 bytes; `lookup_each` takes it apart.
    """

    name: str
    fd: int
    kind: int
    key_size: int
    value_size: int
    max_entries: int

    @property
    def per_cpu(self) -> bool:
        """Whether each processor has a value of its own."""
        return self.kind in _PER_CPU

    @property
    def stored_size(self) -> int:
        """The size in bytes of what one lookup gives."""
        if not self.per_cpu:
            return self.value_size
        return (self.value_size + 7 & ~7) * libbpf.possible_cpus()

    def update(self, key: bytes, value: bytes, replace: Replace = Replace.ANY) -> None:
        """Set one element; raise KernelError: E2BIG when full, EEXIST and ENOENT by `replace`."""
        self._check_sizes(key, value)
        result = libbpf.map_update(self.fd, key, value, replace)
        if result < 0:
            raise self._error("set an element in", -result)

    def lookup(self, key: bytes) -> bytes | None:
        """Give the value of a key, None if there is none; raise KernelError."""
        self._check_sizes(key)
        value = ctypes.create_string_buffer(self.stored_size)
        result = libbpf.map_lookup(self.fd, key, value)
        if result == -errno.ENOENT:
            return None
        if result < 0:
            raise self._error("look up an element in", -result)
        return value.raw

    def lookup_each(self, key: bytes) -> list[bytes] | None:
        """Give the value of each possible processor of a per-CPU map, None if there is no such key."""
        if not self.per_cpu:
            raise KernelError(f"the map {self.name} has one value for all processors")
        values = self.lookup(key)
        if values is None:
            return None
        step = self.value_size + 7 & ~7
        return [values[start : start + self.value_size] for start in range(0, len(values), step)]

    def delete(self, key: bytes) -> bool:
        """Delete one element and tell whether it was there; raise KernelError."""
        self._check_sizes(key)
        result = libbpf.map_delete(self.fd, key)
        if result < 0 and result != -errno.ENOENT:
            raise self._error("delete an element of", -result)
        return result == 0

    def keys(self) -> Iterator[bytes]:
        """Give the keys, at most `max_entries` of them.

        Deleting the current key is fine. If others delete a key meanwhile, the kernel starts over, and keys
        may come twice; hence the bound.
        """
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_size)
        for _ in range(self.max_entries):
            result = libbpf.map_next_key(self.fd, key, following)
            if result == -errno.ENOENT:
                return
            if result < 0:
                raise self._error("walk", -result)
            before, key = key, following.raw
            if before is not None and before == key:
                return
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Give keys with their values, by batches where the kernel has them (5.6)."""
        batch = min(_BATCH, self.max_entries)
        size = self.stored_size
        while True:  # a bucket of a hash map that is larger than the batch gives ENOSPC: try a larger one
            keys = ctypes.create_string_buffer(batch * self.key_size)
            values = ctypes.create_string_buffer(batch * size)
            token: libbpf.Buffer | None = None
            following = ctypes.create_string_buffer(max(self.key_size, 4))
            given = 0
            while True:
                result, count = libbpf.map_lookup_batch(
                    self.fd, token=token, following=following, keys=keys, values=values, count=batch
                )
                if result < 0 and result != -errno.ENOENT:
                    break
                raw_keys, raw_values = keys.raw, values.raw
                for index in range(count):
                    yield (
                        raw_keys[index * self.key_size : (index + 1) * self.key_size],
                        raw_values[index * size : (index + 1) * size],
                    )
                given += count
                if result == -errno.ENOENT:
                    return
                token = following
            if -result == errno.ENOSPC and not given and batch < self.max_entries:
                batch = min(batch * 4, self.max_entries)
                continue
            if -result in _NO_BATCH and not given:
                yield from self._items_singly()
                return
            raise self._error("walk", -result)

    def update_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Set many elements, by one call where the kernel has it; raise KernelError at the first refusal."""
        pairs = list(items)
        if not pairs:
            return
        for key, value in pairs:
            self._check_sizes(key, value)
        keys, values = b"".join(key for key, _ in pairs), b"".join(value for _, value in pairs)
        result, _ = libbpf.map_update_batch(self.fd, keys, values, len(pairs))
        if -result in _NO_BATCH:
            for key, value in pairs:
                self.update(key, value)
        elif result < 0:
            raise self._error("set elements in", -result)

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Delete many elements and give how many were there; raise KernelError."""
        return sum(self.delete(key) for key in list(keys))

    @property
    def memory(self) -> int:
        """The memory in bytes that the kernel reckons for the map ("memlock" in its fdinfo).

        From 5.11 to 6.3 that is only the entries times their size: too little for hash maps, and nothing for
        a ring buffer, whose own size stands in then.
        """
        own = self.max_entries if self.kind == MapType.RINGBUF else 0
        for line in Path(f"/proc/self/fdinfo/{self.fd}").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "memlock":
                return max(int(value), own)
        return own

    def _items_singly(self) -> Iterator[tuple[bytes, bytes]]:
        for key in self.keys():
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def _check_sizes(self, key: bytes, value: bytes | None = None) -> None:
        # The kernel reads as many bytes as the map says, whatever the length of what it is given.
        if len(key) != self.key_size:
            raise KernelError(f"a key of the map {self.name} has {self.key_size} bytes, not {len(key)}")
        if value is not None and len(value) != self.stored_size:
            raise KernelError(
                f"a value of the map {self.name} has {self.stored_size} bytes, not {len(value)}"
            )

    def _error(self, action: str, code: int) -> KernelError:
        hint = ""
        if code == errno.E2BIG:
            hint = f"it is full with {self.max_entries} entries; configure a larger one"
        return KernelError(f"cannot {action} the map {self.name}", errno=code, hint=hint)
