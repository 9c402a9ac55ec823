"""What the programs have noted of Go contexts, read and written as they do it themselves (bpf/context_notes.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from agent.kernel.formats import Value, format_of
from agent.kernel.programs import Programs

_OBJECT = "net_http_server"
_WORD = (1 << 64) - 1
_MIX = 0x9E3779B97F4A7C15
_MIX_AGAIN = 0xBF58476D1CE4E5B9

Fields = dict[str, Value]


class ContextNotes:
    """The sets of notes. What is found there has to be where, and to be sealed as, this class would have done it: were
    the programs to do so in another way, no test would write something that they take no notice of.
    """

    def __init__(self, programs: Programs) -> None:
        types = programs.types[_OBJECT]
        self._map = programs.map("contexts")
        self._set = format_of(types.struct("context_set"))
        self._key = format_of(types.struct("context_key"))
        self._span = format_of(types.struct("context_span"))
        self._ways = sum(name.startswith("tags[") for name in self._set.names)

    def all(self) -> list[tuple[Fields, Fields]]:
        """Give each note that counts: the context's process and address, and what is known of its span."""
        notes = []
        for index, value in self._map.items():
            entry = self._set.unpack(value)
            for way in range(self._ways):
                if not entry[f"tags[{way}]"]:
                    continue
                key, span = self._part(entry, way, "key"), self._part(entry, way, "span")
                assert (int.from_bytes(index, "little"), entry[f"tags[{way}]"]) == self._place(key)
                assert entry[f"notes[{way}].seal"] == self._seal(key, span)
                notes.append((key, span))
        return notes

    def put(self, key: Fields, span: Fields) -> None:
        """Note something of a context, in the place of what is noted of it, or in one that is nobody's."""
        home, tag = self._place(key)
        index = home.to_bytes(4, "little")
        entry = self._set.unpack(self._map.lookup(index) or b"")
        tags = [entry[f"tags[{way}]"] for way in range(self._ways)]
        way = tags.index(tag) if tag in tags else tags.index(0)
        entry[f"tags[{way}]"] = tag
        entry[f"notes[{way}].seal"] = self._seal(key, span)
        entry.update(self._whole(way, "key", key))
        entry.update(self._whole(way, "span", span))
        self._map.update(index, self._set.pack(entry))

    def _part(self, entry: Mapping[str, Value], way: int, part: str) -> Fields:
        prefix = f"notes[{way}].{part}."
        return {name.removeprefix(prefix): value for name, value in entry.items() if name.startswith(prefix)}

    def _whole(self, way: int, part: str, values: Fields) -> Iterator[tuple[str, Value]]:
        form = {"key": self._key, "span": self._span}[part]
        for name, value in form.unpack(form.pack(values)).items():
            yield f"notes[{way}].{part}.{name}", value

    def _words(self, key: Fields) -> tuple[int, int]:
        process, address = struct.unpack("<QQ", self._key.pack(key))
        return process, address

    def _place(self, key: Fields) -> tuple[int, int]:
        """Give the index of the set, and the tag in it."""
        process, address = self._words(key)
        mixed = ((address ^ process * _MIX & _WORD) * _MIX_AGAIN) & _WORD
        mixed ^= mixed >> 32
        return (mixed & 0xFFFFFFFF) * self._map.max_entries >> 32, mixed >> 32 | 1

    def _seal(self, key: Fields, span: Fields) -> int:
        process, address = self._words(key)
        seal = (process * _MIX + address) & _WORD
        for (word,) in struct.iter_unpack("<Q", self._span.pack(span)):
            seal = ((seal ^ word) * _MIX_AGAIN) & _WORD
        return seal ^ seal >> 32
