"""All BPF programs of the agent in the kernel: the object that follows processes, and one for each library.

The maps that several objects declare exist once: the first object brings them, the others take them over. Each
library's object loads by itself, so what a verifier refuses turns off that program or that library and no other. The
daemon has it loaded when the first of its programs is attached: libraries that nothing here contains cost no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

from agent.config import BufferKind, Kernel, Propagation
from agent.kernel import btf, libbpf
from agent.kernel.attach import Attachment, Backend, attach, attach_raw_tracepoint, online_cpus
from agent.kernel.buffers import RecordReader, open_reader
from agent.kernel.errors import KernelError
from agent.kernel.features import Features
from agent.kernel.formats import Format, format_of
from agent.kernel.maps import Map, MapType
from agent.kernel.objects import LoadedObject, LoadOptions, load_object
from agent.libraries import Library
from agent.paths import object_file

PROCESS_OBJECT = "process"
"""bpf/process.bpf.c: it brings the maps that all objects share."""

PROCESS_PROGRAMS = ("process_exec", "process_exit")
"""Its programs: without them nothing works."""

_RECORDS = "records"
_KIND_SUFFIX = "_kind"
_COUNTER_PREFIX = "COUNTER_"
_LEAST_PERF_BUFFER = 64 << 10
"""Bytes; a perf buffer for each processor shares kernel.buffer_size, but for less than this there is no use."""

_GOROUTINES_PER_SPAN = 3
"""Goroutines that are remembered for each span that may be open: an idle connection of a server is one."""

_CONTEXTS_PER_SPAN = 4
"""Contexts that are remembered for each span that may be open: what a request started may outlive it."""

_CONTEXT_WAYS = 8
"""Those of a set (bpf/context_notes.h)."""

_OUTGOING_PER_SPAN = 8
"""Places for header maps of clients' requests for each span that may be open: a set must not be full before all are."""

_OUTGOING_WAYS = 16
"""Those of a set (bpf/outgoing_sets.h)."""

_SCANS_PER_CPU = 4
"""Looks through headers that programs may be at, at a time, for each processor (bpf/header_scan.h)."""


_DEFAULT = Propagation()


@dataclass(frozen=True, slots=True)
class Refused:
    """A program, or with an empty name a whole library, that this kernel does not take."""

    library: str
    program: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecordKind:
    """A struct that comes out of the records' buffer; `library` is None for those about processes."""

    number: int
    format: Format
    library: Library | None


class Programs:
    """The loaded objects, their shared maps, and the buffer of records."""

    def __init__(self, backend: Backend, process: LoadedObject, loader: _Loader) -> None:
        self.backend = backend
        self.propagation = loader.propagation
        self.cannot_write = loader.cannot_write
        """Why nothing can be written into programs; empty where it can."""
        self._loader = loader
        self._waiting: dict[str, Library] = {}
        self.refused: list[Refused] = []
        self.library_bits: dict[str, int] = {}
        """The bit of each library, by its name, in struct process.libraries_off (bpf/process.h)."""
        self._process = process
        self._objects: dict[str, LoadedObject] = {PROCESS_OBJECT: process}
        self._tracepoints: list[Attachment] = []
        self._reader: RecordReader | None = None
        self._changes = 0

    @classmethod
    def load(
        cls,
        features: Features,
        settings: Kernel,
        *,
        libraries: Iterable[Library],
        propagation: Propagation = _DEFAULT,
        when_needed: bool = False,
        constants: Mapping[str, int | bool] | None = None,
    ) -> Programs:
        """Load everything that this kernel takes; with `when_needed` a library's programs when one is attached.
        `constants` are what the configuration says to the programs, by the name of their variable.

        `refused` says what the kernel didn't take of what was loaded so far.

        Raises KernelError where nothing can work: no way to attach, or the processes' object refused.
        """
        backend = features.backend(
            Backend(settings.attach.value) if settings.attach.value != "auto" else None
        )
        loader = _Loader(features, settings, propagation, backend, constants or {})
        try:
            loader.prepare(PROCESS_OBJECT, None)
            process = loader.load(PROCESS_OBJECT)
        except btf.BtfError as error:
            raise KernelError(
                str(error), hint="it belongs to the agent: install it again, or `make bpf`"
            ) from None
        programs = cls(backend, process, loader)
        try:
            for name in PROCESS_PROGRAMS:
                program = process.program(name)
                _, _, tracepoint = program.section.partition("/")
                programs._tracepoints.append(attach_raw_tracepoint(program.fd, tracepoint))
            for library in libraries:
                programs._prepare(library)
            for name in () if when_needed else tuple(programs._waiting):
                programs._load(name)
        except BaseException:
            programs.close()
            raise
        return programs

    def _prepare(self, library: Library) -> None:
        bit = self.library_bits[library.name] = 1 << len(self.library_bits)
        try:
            self._loader.prepare(library.object, library, bit=bit)
        except btf.BtfError as error:
            self.refused.append(Refused(library.name, "", str(error)))
            return
        self._waiting[library.object] = library

    def _load(self, name: str) -> None:
        library = self._waiting.pop(name)
        try:
            loaded = self._loader.load(name)
        except KernelError as error:
            self.refused.append(Refused(library.name, "", str(error)))
            return
        self._objects[name] = loaded
        self.refused += [Refused(library.name, one.program, one.reason) for one in loaded.refused]

    def _object(self, name: str) -> LoadedObject:
        """The object of this name, loaded by now. Raises KernelError where this kernel doesn't take it."""
        if name in self._waiting:
            self._load(name)
        if name not in self._objects:
            raise KernelError("this kernel refuses its programs")
        return self._objects[name]

    @property
    def kinds(self) -> Mapping[int, RecordKind]:
        """What comes out of the records' buffer, by the number in each record."""
        return self._loader.kinds

    @property
    def reader(self) -> RecordReader:
        """The buffer of records, mapped at the first call."""
        if self._reader is None:
            self._reader = open_reader(self._process.map(_RECORDS), perf_size=self._loader.perf_size)
        return self._reader

    @property
    def buffer(self) -> str:
        """What kind of buffer it is: "ring" or "perf"."""
        return "ring" if self._process.map(_RECORDS).kind == MapType.RINGBUF else "perf"

    @property
    def types(self) -> Mapping[str, btf.Btf]:
        """The types of each object, loaded or not yet, by the object's name."""
        return self._loader.types

    def map(self, name: str) -> Map:
        """Give a map that objects share, once one of those that have it is loaded. Raises KernelError."""
        for loaded in self._objects.values():
            if name in loaded.maps:
                return loaded.map(name)
        return self._process.map(name)

    def format(self, name: str) -> Format:
        """Give the format of a struct that the shared maps hold."""
        return format_of(self._process.types.struct(name))

    def constant(self, name: str) -> int:
        """Give an enumerator of the shared headers."""
        return self._process.types.constants[name]

    def write_layouts(self, object_name: str, slot: int, layouts: Mapping[str, bytes]) -> None:
        """Tell the programs of an object where fields lie in the executable that has this slot."""
        loaded = self._object(object_name)
        for name, packed in layouts.items():
            loaded.map(f"{name}s").update(slot.to_bytes(4, "little"), packed)
        self.processes_changed()

    def processes_changed(self) -> None:
        """Have the programs look again at what they keep of processes and their executables (bpf/process_cache.h)."""
        self._changes += 1
        self.map("process_changes").update(bytes(4), self._changes.to_bytes(8, "little"))

    def attach(self, object_name: str, program: str, path: str, offsets: list[int]) -> Attachment:
        """Attach a program at file offsets of an executable; raise KernelError (AttachError)."""
        return attach(self.backend, self._object(object_name).program(program).fd, path, offsets)

    def counters(self) -> dict[str, int]:
        """Read what was counted in the kernel, by lower-case name (enum counter, bpf/counters.h)."""
        names = self._process.types.enums["counter"].constants
        counters = self.map("counters")
        found: dict[str, int] = {}
        for name, index in names.items():
            values = (
                counters.lookup_each(index.to_bytes(4, "little")) if index < counters.max_entries else None
            )
            if values is not None:
                found[name.removeprefix(_COUNTER_PREFIX).lower()] = sum(
                    int.from_bytes(value, "little") for value in values
                )
        return found

    def descriptors(self) -> Iterator[tuple[str, int]]:
        """Give the name and descriptor of every loaded program, for statistics."""
        for loaded in self._objects.values():
            for program in loaded.programs.values():
                yield program.name, program.fd

    @property
    def memory(self) -> int:
        """The memory in bytes that the kernel reckons for all maps, each counted once."""
        maps = {one.name: one for loaded in self._objects.values() for one in loaded.maps.values()}
        return sum(one.memory for one in maps.values())

    def close(self) -> None:
        """Stop following processes and unload everything; attachments must be closed before."""
        for tracepoint in self._tracepoints:
            tracepoint.close()
        if self._reader is not None:
            self._reader.close()
        for loaded in reversed(self._objects.values()):
            loaded.close()
        self._objects.clear()

    def __enter__(self) -> Programs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Loader:
    """Loads one object after the other, with what the ones before brought."""

    def __init__(
        self,
        features: Features,
        settings: Kernel,
        propagation: Propagation,
        backend: Backend,
        constants: Mapping[str, int | bool],
    ) -> None:
        self._backend = backend
        self.propagation = propagation
        refused = features.write_user.sentence.rstrip(".")
        self.cannot_write = "" if features.write_user else refused[:1].lower() + refused[1:]
        self._ring = settings.buffer is not BufferKind.PERF and bool(features.ring_buffer)
        if settings.buffer is BufferKind.RING and not self._ring:
            raise KernelError(f"kernel.buffer is set to ring, but: {features.ring_buffer.sentence}")
        size = 1 << (settings.buffer_size - 1).bit_length()
        outgoing_sets = -(-settings.max_in_flight * _OUTGOING_PER_SPAN // _OUTGOING_WAYS)
        context_sets = -(-settings.max_in_flight * _CONTEXTS_PER_SPAN // _CONTEXT_WAYS)
        self._sizes = {
            _RECORDS: size,
            "goroutines": settings.max_in_flight * _GOROUTINES_PER_SPAN,
            "contexts": context_sets,
            "runtime_layouts": settings.max_executables,
            "outgoing_headers": outgoing_sets,
            "connection_notes": settings.max_in_flight,
            "header_scans": libbpf.possible_cpus() * _SCANS_PER_CPU,
        }
        self.perf_size = max(_LEAST_PERF_BUFFER, size >> (len(online_cpus()) - 1).bit_length())
        self._in_flight = settings.max_in_flight
        self._slots = settings.max_executables
        namespace = features.pid_namespace
        self._constants = {
            "use_ring_buffer": self._ring,
            "wakeup_bytes": size // 4,
            "write_http1": propagation.http1 and bool(features.write_user),
            "write_http2": propagation.http2 and bool(features.write_user),
            "write_grpc": propagation.grpc and bool(features.write_user),
            "write_kafka": propagation.kafka and bool(features.write_user),
            "join_connections": propagation.connections,
            "context_sets": context_sets,
            "outgoing_sets": outgoing_sets,
            "pid_namespace_dev": 0 if namespace.initial else namespace.dev,
            "pid_namespace_ino": 0 if namespace.initial else namespace.ino,
            **constants,
        }
        self._shared: dict[str, int] = {}
        self._prepared: dict[str, dict[str, int | bool]] = {}
        self.kinds: dict[int, RecordKind] = {}
        self.types: dict[str, btf.Btf] = {}

    def prepare(self, name: str, library: Library | None, *, bit: int = 0) -> None:
        """Read an object's types; its records get the next numbers. Raises BtfError."""
        types = btf.read(str(object_file(name)))
        constants: dict[str, int | bool] = {
            variable: value
            for variable, value in (self._constants | {"library_bit": bit}).items()
            if variable in types.variables
        }
        for variable in sorted(types.variables):
            if variable.endswith(_KIND_SUFFIX):
                record = format_of(types.struct(variable.removesuffix(_KIND_SUFFIX)))
                kind = RecordKind(len(self.kinds) + 1, record, library)
                self.kinds[kind.number] = kind
                constants[variable] = kind.number
        self.types[name] = types
        self._prepared[name] = constants

    def load(self, name: str) -> LoadedObject:
        """Load an object that was prepared; its maps are shared with those to come. Raises KernelError."""
        types, constants = self.types[name], self._prepared[name]
        options = LoadOptions(
            constants=constants,
            max_entries=self._max_entries(types),
            kinds={} if self._ring or _RECORDS in self._shared else {_RECORDS: MapType.PERF_EVENT_ARRAY},
            shared=self._shared,
            attach_type=self._backend.attach_type,
        )
        loaded = load_object(str(object_file(name)), options, types=types)
        for map_name, one in loaded.maps.items():
            if not map_name.startswith("."):
                self._shared.setdefault(map_name, one.fd)
        return loaded

    def _max_entries(self, types: btf.Btf) -> dict[str, int]:
        """Sizes by what a map holds: layouts an executable, details a span in flight."""
        sizes: dict[str, int] = {}
        for name, variable in types.variables.items():
            if variable.section != ".maps" or name in self._shared:
                continue
            if name in self._sizes:
                if name != _RECORDS or self._ring:
                    sizes[name] = self._sizes[name]
            elif name.endswith("_layouts"):
                sizes[name] = self._slots
            elif name.endswith("_requests"):
                sizes[name] = self._in_flight
        return sizes
