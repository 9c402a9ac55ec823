"""The system's libbpf by ctypes: a thin, typed binding with what libbpf 1.1 has and nothing later.

Every function here is one call of the library of (nearly) the same name. Errors become KernelError; handles
are opaque addresses, each with a type of its own so that mypy tells a map from a program. The library is
loaded at the first call, so importing this file costs nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import enum
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, NewType

from agent.kernel.errors import KernelError

Object = NewType("Object", int)
"""struct bpf_object *"""
Program = NewType("Program", int)
"""struct bpf_program *, valid as long as its object is open"""
Map = NewType("Map", int)
"""struct bpf_map *, valid as long as its object is open"""


class LogLevel(enum.IntEnum):
    """How grave a message of the library is: enum libbpf_print_level."""

    WARN = 0
    INFO = 1
    DEBUG = 2


LogCallback = Callable[[LogLevel, str], None]

_int, _u32, _size = ctypes.c_int, ctypes.c_uint32, ctypes.c_size_t
_pointer, _string, _bool = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool

# What each function returns and takes (bpf.h and libbpf.h of libbpf 1.1).
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_set_print": (_pointer, (_pointer,)),
    "libbpf_version_string": (_string, ()),
    "libbpf_num_possible_cpus": (_int, ()),
    "libbpf_probe_bpf_helper": (_int, (_int, _int, _pointer)),
    "bpf_object__open_file": (_pointer, (_string, _pointer)),
    "bpf_object__btf": (_pointer, (_pointer,)),
    "btf__raw_data": (_pointer, (_pointer, ctypes.POINTER(_u32))),
    "bpf_object__load": (_int, (_pointer,)),
    "bpf_object__close": (None, (_pointer,)),
    "bpf_object__next_program": (_pointer, (_pointer, _pointer)),
    "bpf_object__next_map": (_pointer, (_pointer, _pointer)),
    "bpf_program__name": (_string, (_pointer,)),
    "bpf_program__section_name": (_string, (_pointer,)),
    "bpf_program__fd": (_int, (_pointer,)),
    "bpf_program__type": (_int, (_pointer,)),
    "bpf_program__autoload": (_bool, (_pointer,)),
    "bpf_program__set_autoload": (_int, (_pointer, _bool)),
    "bpf_program__set_expected_attach_type": (_int, (_pointer, _int)),
    "bpf_map__name": (_string, (_pointer,)),
    "bpf_map__fd": (_int, (_pointer,)),
    "bpf_map__type": (_int, (_pointer,)),
    "bpf_map__set_type": (_int, (_pointer, _int)),
    "bpf_map__key_size": (_u32, (_pointer,)),
    "bpf_map__set_key_size": (_int, (_pointer, _u32)),
    "bpf_map__value_size": (_u32, (_pointer,)),
    "bpf_map__set_value_size": (_int, (_pointer, _u32)),
    "bpf_map__max_entries": (_u32, (_pointer,)),
    "bpf_map__set_max_entries": (_int, (_pointer, _u32)),
    "bpf_map__initial_value": (_pointer, (_pointer, ctypes.POINTER(_size))),
    "bpf_map__reuse_fd": (_int, (_pointer, _int)),
    "bpf_map_update_elem": (_int, (_int, _pointer, _pointer, ctypes.c_uint64)),
    "bpf_map_lookup_elem": (_int, (_int, _pointer, _pointer)),
    "bpf_map_delete_elem": (_int, (_int, _pointer)),
    "bpf_map_get_next_key": (_int, (_int, _pointer, _pointer)),
    "bpf_map_lookup_batch": (_int, (_int, *[_pointer] * 4, ctypes.POINTER(_u32), _pointer)),
    "bpf_map_update_batch": (_int, (_int, _pointer, _pointer, ctypes.POINTER(_u32), _pointer)),
    "bpf_obj_get_info_by_fd": (_int, (_int, _pointer, ctypes.POINTER(_u32))),
    "bpf_enable_stats": (_int, (_int,)),
    "bpf_raw_tracepoint_open": (_int, (_string, _int)),
}


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise KernelError(
            f"libbpf cannot be loaded: {error}", hint="install the package libbpf1 (libbpf 1.1 or later)"
        ) from None
    for name, (result, arguments) in _PROTOTYPES.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise KernelError(
                f"libbpf has no {name}()", hint="libbpf 1.1 or later is needed; install a newer libbpf1"
            ) from None
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(ctypes.cast(_ON_MESSAGE, ctypes.c_void_p))  # it would write to stderr
    return library


def _check(result: int, message: str) -> int:
    """Give a result back, or raise for minus an errno."""
    if result < 0:
        raise KernelError(message, errno=-result)
    return result


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")


# ---- the library


def version() -> str:
    """Give the library's version, such as "v1.1"."""
    return _text(_library().libbpf_version_string())


@functools.cache
def possible_cpus() -> int:
    """Give the number of processors that a per-CPU map has values for."""
    return _check(_library().libbpf_num_possible_cpus(), "cannot count the possible processors")


def has_helper(program_type: int, helper: int) -> bool:
    """Tell whether programs of a type (enum bpf_prog_type) may call a helper (enum bpf_func_id)."""
    result = _library().libbpf_probe_bpf_helper(program_type, helper, None)
    return _check(result, f"cannot find out about the BPF helper {helper}") == 1


# va_list arrives as one pointer on both architectures: an array of one struct on amd64, which decays, and a
# struct larger than 16 bytes on arm64, which the caller copies and passes by reference (AAPCS64 6.8.2).
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@functools.cache
def _formatter() -> tuple[Any, Any]:
    libc = ctypes.CDLL(None)
    libc.vasprintf.restype = ctypes.c_int
    libc.vasprintf.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, ctypes.c_void_p)
    libc.free.restype = None
    libc.free.argtypes = (ctypes.c_void_p,)
    return libc.vasprintf, libc.free


def _format(template: int, arguments: int) -> str:
    """Format a C message; by vasprintf, since a va_list can be walked only once and logs may be long."""
    vasprintf, free = _formatter()
    result = ctypes.c_void_p()
    length = vasprintf(ctypes.byref(result), template, arguments)
    if length < 0 or not result.value:
        return ""
    try:
        return ctypes.string_at(result.value, length).decode(errors="replace")
    finally:
        free(result)


@dataclasses.dataclass(slots=True)
class _Sink:
    callback: LogCallback | None = None
    level: LogLevel = LogLevel.INFO


_sink = _Sink()


def _on_message(severity: int, template: int, arguments: int) -> int:
    if _sink.callback is not None and severity <= _sink.level:
        _sink.callback(LogLevel(severity), _format(template, arguments).rstrip("\n"))
    return 0


_ON_MESSAGE = _PRINT(_on_message)  # lives as long as the library, which holds a bare pointer to it


def set_log(callback: LogCallback | None, *, level: LogLevel = LogLevel.INFO) -> None:
    """Hand every message of the library up to `level` to `callback`, without its newline; None drops them.

    That is also how it starts. What goes wrong is raised anyway; the messages say more about it.
    """
    _sink.callback, _sink.level = callback, level


@contextlib.contextmanager
def captured_warnings() -> Iterator[list[str]]:
    """Collect the library's warnings while the block runs; they go nowhere else."""
    messages: list[str] = []
    before = _sink.callback, _sink.level
    set_log(lambda _, message: messages.append(message), level=LogLevel.WARN)
    try:
        yield messages
    finally:
        set_log(before[0], level=before[1])


# ---- objects


def object_open(path: str) -> Object:
    """Read an object file; nothing is in the kernel yet. Close it with object_close."""
    result = _library().bpf_object__open_file(os.fsencode(path), None)
    if not result:
        raise KernelError(f"cannot open the BPF object {path}", errno=ctypes.get_errno())
    return Object(result)


def object_types(handle: Object) -> bytes | None:
    """Copy an object's BTF, in which libbpf has set where each global variable stands; None if it has none."""
    types = _library().bpf_object__btf(handle)
    size = ctypes.c_uint32()
    data = _library().btf__raw_data(types, ctypes.byref(size)) if types else None
    return ctypes.string_at(data, size.value) if data else None


def object_load(handle: Object) -> int:
    """Create the maps and load the programs, all or nothing; give 0 or minus the errno."""
    return int(_library().bpf_object__load(handle))


def object_close(handle: Object) -> None:
    """Unload what nothing else holds, and free the object with its programs and maps."""
    _library().bpf_object__close(handle)


def programs(handle: Object) -> Iterator[Program]:
    """Give the programs of an object in the order of the file."""
    pointer = _library().bpf_object__next_program(handle, None)
    while pointer:
        yield Program(pointer)
        pointer = _library().bpf_object__next_program(handle, pointer)


def maps(handle: Object) -> Iterator[Map]:
    """Give the maps of an object, the ones for global variables included."""
    pointer = _library().bpf_object__next_map(handle, None)
    while pointer:
        yield Map(pointer)
        pointer = _library().bpf_object__next_map(handle, pointer)


# ---- programs


def program_name(program: Program) -> str:
    """Give the name of the C function."""
    return _text(_library().bpf_program__name(program))


def program_section(program: Program) -> str:
    """Give what SEC() says."""
    return _text(_library().bpf_program__section_name(program))


def program_fd(program: Program) -> int:
    """Give the descriptor of a loaded program; the object owns it."""
    return _check(_library().bpf_program__fd(program), f"the program {program_name(program)} is not loaded")


def program_type(program: Program) -> int:
    """Give the type, enum bpf_prog_type."""
    return int(_library().bpf_program__type(program))


def program_autoload(program: Program) -> bool:
    """Tell whether the program is loaded with its object."""
    return bool(_library().bpf_program__autoload(program))


def program_set_autoload(program: Program, load: bool) -> None:
    """Say whether the program is loaded with its object."""
    result = _library().bpf_program__set_autoload(program, load)
    _check(result, f"cannot switch the program {program_name(program)}")


def program_set_attach_type(program: Program, attach_type: int) -> None:
    """Set the expected attach type, enum bpf_attach_type; also one that this libbpf doesn't know."""
    result = _library().bpf_program__set_expected_attach_type(program, attach_type)
    _check(result, f"cannot set the attach type of the program {program_name(program)}")


# ---- maps of an object


def map_name(handle: Map) -> str:
    """Give the name in C, or a name ending in ".rodata", ".data" or ".bss" for global variables."""
    return _text(_library().bpf_map__name(handle))


def map_fd(handle: Map) -> int:
    """Give the descriptor of a created map; the object owns it."""
    return _check(_library().bpf_map__fd(handle), f"the map {map_name(handle)} is not created")


def map_type(handle: Map) -> int:
    """Give the type, enum bpf_map_type."""
    return int(_library().bpf_map__type(handle))


def map_key_size(handle: Map) -> int:
    """Give the size of a key in bytes."""
    return int(_library().bpf_map__key_size(handle))


def map_value_size(handle: Map) -> int:
    """Give the size of a value in bytes, for one processor."""
    return int(_library().bpf_map__value_size(handle))


def map_max_entries(handle: Map) -> int:
    """Give the number of entries, or the size in bytes of a ring buffer."""
    return int(_library().bpf_map__max_entries(handle))


def map_set_max_entries(handle: Map, entries: int) -> None:
    """Set the number of entries, or the size in bytes of a ring buffer, before loading."""
    result = _library().bpf_map__set_max_entries(handle, entries)
    _check(result, f"cannot set the size of the map {map_name(handle)} to {entries}")


def map_set_kind(handle: Map, *, kind: int, key_size: int, value_size: int) -> None:
    """Make another type of map of it, before loading."""
    library, message = _library(), f"cannot change the type of the map {map_name(handle)} to {kind}"
    _check(library.bpf_map__set_type(handle, kind), message)
    _check(library.bpf_map__set_key_size(handle, key_size), message)
    _check(library.bpf_map__set_value_size(handle, value_size), message)


def map_initial_value(handle: Map) -> memoryview | None:
    """Give the memory of a map of global variables, to be changed before loading; None for other maps."""
    size = _size()
    address = _library().bpf_map__initial_value(handle, ctypes.byref(size))
    if not address:
        return None
    return memoryview((ctypes.c_char * size.value).from_address(address)).cast("B")


def map_reuse_fd(handle: Map, fd: int) -> None:
    """Take an existing map instead of creating one; the descriptor is duplicated."""
    _check(_library().bpf_map__reuse_fd(handle, fd), f"cannot share the map {map_name(handle)}")


# ---- map elements: results as the calls give them, since "no such key" is an answer


def map_update(fd: int, key: bytes, value: bytes, flags: int) -> int:
    """Set one element; give 0 or minus the errno."""
    return int(_library().bpf_map_update_elem(fd, key, value, flags))


def map_lookup(fd: int, key: bytes, value: ctypes.Array[ctypes.c_char]) -> int:
    """Copy one element's value into `value`; give 0 or minus the errno."""
    return int(_library().bpf_map_lookup_elem(fd, key, value))


def map_delete(fd: int, key: bytes) -> int:
    """Delete one element; give 0 or minus the errno."""
    return int(_library().bpf_map_delete_elem(fd, key))


def map_next_key(fd: int, key: bytes | None, following: ctypes.Array[ctypes.c_char]) -> int:
    """Copy the key after `key` (None: the first one) into `following`; give 0 or minus the errno."""
    return int(_library().bpf_map_get_next_key(fd, key, following))


Buffer = ctypes.Array[ctypes.c_char]


def map_lookup_batch(
    fd: int, *, token: Buffer | None, following: Buffer, keys: Buffer, values: Buffer, count: int
) -> tuple[int, int]:
    """Copy up to `count` elements from the place `token` on; give 0 or minus the errno, and how many."""
    number = _u32(count)
    result = _library().bpf_map_lookup_batch(fd, token, following, keys, values, ctypes.byref(number), None)
    return int(result), number.value


def map_update_batch(fd: int, keys: bytes, values: bytes, count: int) -> tuple[int, int]:
    """Set `count` elements; give 0 or minus the errno, and how many were set."""
    number = _u32(count)
    result = _library().bpf_map_update_batch(fd, keys, values, ctypes.byref(number), None)
    return int(result), number.value


# ---- descriptors


def object_info(fd: int, info: ctypes.Structure) -> None:
    """Fill a struct bpf_prog_info or bpf_map_info for a descriptor, as far as this kernel knows it."""
    length = _u32(ctypes.sizeof(info))
    result = _library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(length))
    _check(result, "cannot get the information about a BPF descriptor")


def enable_stats() -> int:
    """Count run times of all programs as long as the descriptor given is open (Linux 5.8)."""
    return _check(_library().bpf_enable_stats(0), "cannot enable the run-time statistics of BPF programs")


def raw_tracepoint_open(name: str, program_fd: int) -> int:
    """Attach a raw tracepoint program and give the link's descriptor; closing it detaches."""
    result = _library().bpf_raw_tracepoint_open(name.encode(), program_fd)
    return _check(result, f"cannot attach to the raw tracepoint {name}")
