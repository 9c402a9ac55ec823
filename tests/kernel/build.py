"""What the tests attach: a BPF object and a C program, compiled into build/ when their source is newer."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import IO

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "tests" / "kernel"


def _newer(source: Path, result: Path) -> bool:
    return not result.exists() or result.stat().st_mtime < source.stat().st_mtime


def _compile(command: list[str], source: Path, result: Path) -> None:
    result.parent.mkdir(parents=True, exist_ok=True)
    fresh = result.with_suffix(f".{os.getpid()}")
    subprocess.run([*command, str(source), "-o", str(fresh)], check=True)
    fresh.rename(result)


@functools.cache
def probes() -> str:
    """Compile probes.bpf.c and give the object's path; it looks at no register, so it fits any machine."""
    source, result = HERE / "probes.bpf.c", BUILD / "probes.bpf.o"
    if _newer(source, result):
        include = f"/usr/include/{os.uname().machine}-linux-gnu"
        flags = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-idirafter", include]
        _compile(["clang", *flags, "-c"], source, result)
    return str(result)


@functools.cache
def target() -> str:
    """Compile target.c and give the program's path."""
    source, result = HERE / "target.c", BUILD / os.uname().machine / "target"
    if _newer(source, result):
        _compile(["cc", "-O1", "-Wall", "-Werror"], source, result)
    return str(result)


def offset_of(path: str, name: str) -> int:
    """Give the file offset of a function of an ELF file."""
    with Path(path).open("rb") as file:
        elf = ELFFile(file)
        for table in (".symtab", ".dynsym"):
            section = elf.get_section_by_name(table)
            if not isinstance(section, SymbolTableSection):
                continue
            for symbol in section.get_symbol_by_name(name) or ():
                address = int(symbol["st_value"])
                for segment in elf.iter_segments():
                    start = int(segment["p_vaddr"])
                    if segment["p_type"] == "PT_LOAD" and start <= address < start + segment["p_filesz"]:
                        return address - start + int(segment["p_offset"])
    raise LookupError(f"{path} has no function {name}")


@functools.cache
def places() -> tuple[int, ...]:
    """Give the file offsets of the target's ten functions, each of them a nop."""
    return tuple(offset_of(target(), f"place_{number}") for number in range(10))


class Target:
    """The target running; `call` lets it call each of its ten functions."""

    def __init__(self, path: str | None = None) -> None:
        self.process = subprocess.Popen(
            [path or target()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._output.readline() == "ready\n"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def _output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def start(self, times: int) -> None:
        """Let it call each function `times` times, without waiting for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{times}\n")

    def finish(self) -> None:
        """Wait until it has called them."""
        assert self._output.readline() == "done\n"

    def call(self, times: int) -> None:
        """Let it call each function `times` times, and wait for it."""
        self.start(times)
        self.finish()

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait(10)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
