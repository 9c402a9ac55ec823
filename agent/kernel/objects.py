"""BPF objects: a file compiled from bpf/ loaded into the kernel, as much of it as this kernel takes."""

from __future__ import annotations

import dataclasses
import errno
import re
from collections.abc import Collection, Mapping
from types import TracebackType

from agent.kernel import btf, libbpf
from agent.kernel.errors import KernelError
from agent.kernel.formats import Format, Value, format_of
from agent.kernel.maps import Map, MapType

_LOG_LINES = 20
"""How many of the last lines of the verifier's log go into a reason."""

_REFUSED = re.compile(r"^libbpf: prog '([^']+)': (?:BPF program load failed|failed to load)")
_RELOCATION = re.compile(r"^libbpf: prog '([^']+)': (.+)")
_LOG = re.compile(r"-- BEGIN PROG LOAD LOG --\n(.*)-- END PROG LOAD LOG --", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A loaded program; its descriptor belongs to its object."""

    name: str
    section: str
    fd: int


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A program that is off because the kernel refused it; the reason is for the administrator."""

    program: str
    reason: str


class LoadedObject:
    """Programs and maps in the kernel, until `close`. Attached programs live on as long as their links.

    `programs` and `maps` are by C name; the maps of global variables are ".rodata", ".data" and ".bss".
    `refused` are the programs that are off, `warnings` what libbpf had to say about the rest, `types` the
    types of the object file.
    """

    def __init__(
        self,
        handle: libbpf.Object,
        path: str,
        types: btf.Btf,
        refused: tuple[Refusal, ...],
        warnings: tuple[str, ...],
    ) -> None:
        self._handle: libbpf.Object | None = handle
        self.path = path
        self.types = types
        self.refused = refused
        self.warnings = warnings
        self.programs = {
            libbpf.program_name(one): Program(
                libbpf.program_name(one), libbpf.program_section(one), libbpf.program_fd(one)
            )
            for one in libbpf.programs(handle)
            if libbpf.program_autoload(one)
        }
        self.maps = {_name(one): _map(one) for one in libbpf.maps(handle)}

    def program(self, name: str) -> Program:
        """Give a program by its C name; raise KernelError with the reason why it isn't there."""
        if name in self.programs:
            return self.programs[name]
        for refusal in self.refused:
            if refusal.program == name:
                raise KernelError(f"the program {name} is off: {refusal.reason}")
        raise KernelError(f"{self.path} has no loaded program {name}")

    def map(self, name: str) -> Map:
        """Give a map by its C name; raise KernelError if there is none."""
        if name not in self.maps:
            raise KernelError(f"{self.path} has no map {name}")
        return self.maps[name]

    def variable(self, name: str) -> Value | dict[str, Value]:
        """Read a global variable as it is in the kernel now: a number, bytes, or a struct by its members."""
        variable = self.types.variables.get(name)
        if variable is None or variable.section not in self.maps:
            raise KernelError(f"{self.path} has no variable {name}")
        data = self.maps[variable.section].lookup(bytes(4)) or b""
        fields = _format_of(variable).unpack(data, variable.offset)
        return fields if isinstance(variable.type, btf.Struct) else fields[name]

    @property
    def memory(self) -> int:
        """The memory in bytes that the kernel reckons for the maps, shared ones included."""
        return sum(one.memory for one in self.maps.values())

    def close(self) -> None:
        """Give up programs and maps; descriptors of this object are invalid from here on."""
        if self._handle is not None:
            libbpf.object_close(self._handle)
            self._handle = None

    def __enter__(self) -> LoadedObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What is set on an object before it is loaded; names that the object doesn't have are errors.

    `constants` are `const volatile` variables by name: a number, the bytes of a char array, or a struct's
    members by name. `max_entries` and `kinds` change maps; a ring buffer made a perf event array gets its
    sizes by itself. `shared` maps are taken by descriptor wherever the object has one of that name (and only
    these may be names it doesn't have). `programs` are the only ones to load, None means all.
    `attach_type` is the expected attach type of all programs in a section "uprobe" or "uprobe/…".
    """

    constants: Mapping[str, Value | Mapping[str, Value]] = dataclasses.field(default_factory=dict)
    max_entries: Mapping[str, int] = dataclasses.field(default_factory=dict)
    kinds: Mapping[str, MapType] = dataclasses.field(default_factory=dict)
    shared: Mapping[str, int] = dataclasses.field(default_factory=dict)
    programs: Collection[str] | None = None
    attach_type: int = 0


def load_object(
    path: str, options: LoadOptions = LoadOptions(), *, types: btf.Btf | None = None
) -> LoadedObject:
    """Load an object file; programs that the verifier refuses are off, and the rest is loaded.

    libbpf loads all or nothing, so after a refusal the object is opened once more without that program.
    `types` spares reading them again. Raise KernelError if the file can't be read, a name in the options is
    unknown, a map can't be created, or BPF isn't permitted at all; BtfError if its types can't be read.
    """
    types = types or btf.read(path)
    refused: list[Refusal] = []
    while True:
        with libbpf.captured_warnings() as messages:
            handle = libbpf.object_open(path)
            try:
                _prepare(handle, path, types, options, [one.program for one in refused])
                code = -libbpf.object_load(handle)
                if not code:
                    return LoadedObject(handle, path, types, tuple(refused), tuple(messages))
                refusal = refusal_in(messages, code)
            except BaseException:
                libbpf.object_close(handle)
                raise
            libbpf.object_close(handle)
        if refusal is None or code == errno.EPERM or refusal.program in {one.program for one in refused}:
            raise KernelError(_failure(path, messages), errno=code, hint=_hint(code))
        refused.append(refusal)


def _prepare(
    handle: libbpf.Object, path: str, types: btf.Btf, options: LoadOptions, off: Collection[str]
) -> None:
    programs = {libbpf.program_name(one): one for one in libbpf.programs(handle)}
    maps = {_name(one): one for one in libbpf.maps(handle)}
    _known(path, "program", options.programs or (), programs)
    _known(path, "map", (*options.max_entries, *options.kinds), maps)
    for name, program in programs.items():
        wanted = options.programs is None or name in options.programs
        if not wanted or name in off:
            libbpf.program_set_autoload(program, False)
        if options.attach_type and libbpf.program_section(program).split("/")[0] == "uprobe":
            libbpf.program_set_attach_type(program, options.attach_type)
    for name, kind in options.kinds.items():
        if kind == MapType.PERF_EVENT_ARRAY:
            libbpf.map_set_kind(maps[name], kind=kind, key_size=4, value_size=4)
            libbpf.map_set_max_entries(maps[name], libbpf.possible_cpus())
        else:
            key, value = libbpf.map_key_size(maps[name]), libbpf.map_value_size(maps[name])
            libbpf.map_set_kind(maps[name], kind=kind, key_size=key, value_size=value)
    for name, entries in options.max_entries.items():
        libbpf.map_set_max_entries(maps[name], entries)
    for name, fd in options.shared.items():
        if name in maps:
            libbpf.map_reuse_fd(maps[name], fd)
    _set_constants(path, maps, types, options.constants)


def _set_constants(
    path: str,
    maps: Mapping[str, libbpf.Map],
    types: btf.Btf,
    constants: Mapping[str, Value | Mapping[str, Value]],
) -> None:
    for name, value in constants.items():
        variable = types.variables.get(name)
        if variable is None or not variable.section.startswith(".rodata"):
            raise KernelError(f"{path} has no constant {name}", hint="declare it `const volatile`")
        memory = libbpf.map_initial_value(maps[variable.section]) if variable.section in maps else None
        data = encode(variable, value)
        if memory is None or variable.offset + len(data) > len(memory):
            raise KernelError(f"{path}: the constant {name} lies outside of its section {variable.section}")
        memory[variable.offset : variable.offset + len(data)] = data


def encode(variable: btf.Variable, value: Value | Mapping[str, Value]) -> bytes:
    """Give the bytes of a global variable's new value; raise BtfError if it doesn't fit its type."""
    if isinstance(variable.type, btf.Struct):
        if not isinstance(value, Mapping):
            raise btf.BtfError(f"{variable.name} is a struct: give its members by name")
        return _format_of(variable).pack(value)
    if isinstance(value, Mapping):
        raise btf.BtfError(f"{variable.name} is no struct")
    return _format_of(variable).pack({variable.name: value})


def _format_of(variable: btf.Variable) -> Format:
    if isinstance(variable.type, btf.Struct):
        return format_of(variable.type)
    member = btf.Member(variable.name, 0, variable.type)
    return format_of(btf.Struct(variable.name, variable.type.size, (member,)))


def _known(path: str, noun: str, names: Collection[str], there: Collection[str]) -> None:
    for name in names:
        if name not in there:
            raise KernelError(f"{path} has no {noun} {name}; it has {', '.join(sorted(there))}")


def refusal_in(messages: list[str], code: int) -> Refusal | None:
    """Find in libbpf's warnings the program that was refused, and why; None if it was something else."""
    for message in messages:
        found = _REFUSED.match(message)
        if found:
            return Refusal(found[1], _reason(messages, code))
    for message in messages:  # a relocation that failed before the kernel saw the program
        found = _RELOCATION.match(message)
        if found:
            return Refusal(found[1], found[2])
    return None


def _reason(messages: list[str], code: int) -> str:
    for message in messages:
        found = _LOG.search(message)
        if found:
            lines = [line for line in found[1].splitlines() if line.strip() and not _statistics(line)]
            return "the verifier refused it: " + "\n".join(lines[-_LOG_LINES:])
    return str(KernelError("the kernel refused it", errno=code, hint=_hint(code)))


def _statistics(line: str) -> bool:
    return line.startswith(("processed ", "verification time ", "stack depth "))


def _failure(path: str, messages: list[str]) -> str:
    last = "; ".join(message.removeprefix("libbpf: ") for message in messages[:3])
    return f"cannot load {path}" + (f" ({last})" if last else "")


def _hint(code: int) -> str:
    if code in (errno.EPERM, errno.EACCES):
        return (
            "CAP_BPF and CAP_PERFMON are needed, CAP_SYS_ADMIN before Linux 5.8, and before 5.11 "
            "LimitMEMLOCK=infinity; see `gospan check`"
        )
    if code == errno.ENOMEM:
        return "not enough memory for the maps; configure smaller ones"
    return ""


def _name(handle: libbpf.Map) -> str:
    """Give a map's name, without the object's name that libbpf puts before ".rodata" and the like."""
    before, dot, after = libbpf.map_name(handle).partition(".")
    return dot + after or before


def _map(handle: libbpf.Map) -> Map:
    return Map(
        _name(handle),
        libbpf.map_fd(handle),
        libbpf.map_type(handle),
        libbpf.map_key_size(handle),
        libbpf.map_value_size(handle),
        libbpf.map_max_entries(handle),
    )
