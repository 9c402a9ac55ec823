"""What the kernel is told of the headers that spans shall have: the maps of bpf/header_sets.h."""

from __future__ import annotations

from collections.abc import Iterable

from agent.discovery.headers import WantedHeaders
from agent.kernel.errors import KernelError
from agent.kernel.programs import Programs
from agent.spans.captured_headers import number_of_name

_LOWER_CASE = 0x20


class HeaderSets:
    """Gives each selection of headers a number, by which processes refer to it.

    What stands under a number never changes: requests are under way that go by it. One that is free comes again only
    after all others.
    """

    def __init__(self, programs: Programs) -> None:
        self._sets = programs.map("header_sets")
        self._names = programs.map("wanted_headers")
        self._set = programs.format("header_set")
        self._key = programs.format("wanted_header_key")
        self._value = programs.format("wanted_header")
        self._messages = (programs.constant("MESSAGE_REQUEST"), programs.constant("MESSAGE_RESPONSE"))
        self._numbers: dict[WantedHeaders, int] = {}
        self._last = 0

    def number_of(self, headers: WantedHeaders) -> int:
        """Give the number of a selection, known to the kernel; 0 of none. Raises KernelError where there is no room."""
        if not headers:
            return 0
        number = self._numbers.get(headers)
        if number is None:
            number = self._next()
            for key, value in self._entries(headers, number):
                self._names.update(key, value)
            lengths = dict(
                zip(self._set.names, map(_lengths, (headers.request, headers.response)), strict=True)
            )
            self._sets.update(number.to_bytes(4, "little"), self._set.pack(lengths))
            self._numbers[headers] = number
        return number

    def keep(self, wanted: Iterable[WantedHeaders]) -> None:
        """Forget the selections that are not among these; no process refers to one any more."""
        for headers in self._numbers.keys() - set(wanted):
            number = self._numbers.pop(headers)
            self._sets.update(number.to_bytes(4, "little"), bytes(self._set.size))
            self._names.delete_many(key for key, _ in self._entries(headers, number))

    def _next(self) -> int:
        used = set(self._numbers.values())
        last = self._sets.max_entries - 1
        for _ in range(last):
            self._last = self._last % last + 1
            if self._last not in used:
                return self._last
        raise KernelError(
            "there are more different lists of headers in discovery.rules than there is room for"
        )

    def _entries(self, headers: WantedHeaders, number: int) -> Iterable[tuple[bytes, bytes]]:
        for message, names in zip(self._messages, (headers.request, headers.response), strict=True):
            for name in names:
                key = self._key.pack(
                    {"set": number, "message": message, "name": _folded(name, self._name_size)}
                )
                yield (
                    key,
                    self._value.pack({"number": number_of_name(name), "is_secret": name in headers.secret}),
                )

    @property
    def _name_size(self) -> int:
        return self._key.size - self._key.offset("name")


def _folded(name: str, size: int) -> bytes:
    """A name as the programs look for it: every byte in lower case, also those behind the name."""
    return bytes(byte | _LOWER_CASE for byte in name.encode().ljust(size, b"\0"))


def _lengths(names: Iterable[str]) -> int:
    lengths = 0
    for name in names:
        lengths |= 1 << len(name)
    return lengths
