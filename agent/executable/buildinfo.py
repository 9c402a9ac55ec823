"""What `go version -m` prints: Go's version, the modules and the build settings (debug/buildinfo, runtime/debug)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from agent.executable.elf import Image
from agent.executable.errors import CorruptError, NotGoError, UnsupportedError

_MAGIC = b"\xff Go buildinf:"
_ALIGN = 16
_HEADER = 32
_INLINE_STRINGS = 2
_MARK = 16
"""The module text stands between two marks of 16 bytes (cmd/go/internal/modload: infoStart, infoEnd)."""

_MAX_VERSION = 1024
_MAX_TEXT = 1 << 20
_VERSION = re.compile(rb"\bgo1\b|^devel\b")


@dataclass(frozen=True, slots=True)
class Module:
    """A module as the build recorded it. `version` may be `(devel)` or empty; distributions often record none."""

    path: str
    version: str
    sum: str
    replaced_by: "Module | None" = None


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """`go_version` is as in `go1.27.4` (with a suffix for experiments), `path` the main package, `main` its module."""

    go_version: str
    path: str
    main: Module | None
    dependencies: tuple[Module, ...]
    settings: Mapping[str, str]

    @property
    def minor(self) -> int | None:
        """The 27 of `go1.27.4`, or None if the version doesn't say."""
        match = re.search(r"\bgo1\.(\d{1,4})(?!\d)", self.go_version)
        return int(match[1]) if match else None


def find_build_info(image: Image) -> BuildInfo:
    """Return the build info of a program: section .go.buildinfo, else a search of its data, where no section is left.

    Raises NotGoError if there is none, UnsupportedError if it is one of Go before 1.18, which kept it elsewhere.
    """
    old = False
    for address in _candidates(image):
        header = image.read(address, _HEADER)
        if not header[15] & _INLINE_STRINGS:
            old = True
            continue
        try:
            version, after = _string(image, address + _HEADER, _MAX_VERSION)
            text, _ = _string(image, after, _MAX_TEXT)
        except CorruptError:
            continue
        if _VERSION.search(version):
            return parse_module_text(version.decode("utf-8", "replace"), text)
    if old:
        raise UnsupportedError("was built with Go before 1.18; 1.19 is the oldest supported: rebuild it")
    raise NotGoError("has no Go build info: it is no Go program, or a packer or obfuscator removed it")


def _candidates(image: Image) -> list[int]:
    section = image.sections.get(".go.buildinfo")
    if section is not None and section[1] >= _HEADER and image.read(section[0], len(_MAGIC)) == _MAGIC:
        return [section[0]]
    found: list[int] = []
    # The writable segment first: the magic also stands in programs that read build info, such as the go
    # command.
    for segment in sorted(image.segments, key=lambda segment: not segment.writable):
        if not segment.executable:
            for address in image.find(_MAGIC, segment.address, segment.end, align=_ALIGN):
                if image.segment(address, _HEADER):
                    found.append(address)
                if len(found) >= 16:
                    return found
    return found


def _string(image: Image, address: int, limit: int) -> tuple[bytes, int]:
    """Return a string with a uvarint length before it, and the address after it. Raises CorruptError."""
    size = 0
    for index in range(4):
        byte = image.read(address + index, 1)[0]
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            break
    else:
        raise CorruptError("build info holds a string that is too long")
    if size > limit:
        raise CorruptError("build info holds a string that is too long")
    start = address + index + 1
    return image.read(start, size), start + size


def parse_module_text(version: str, text: bytes) -> BuildInfo:
    """Read the tab-separated lines of the module text (runtime/debug.ParseBuildInfo); unknown lines are passed over."""
    if len(text) > 2 * _MARK and text[-_MARK - 1] == 0x0A:
        text = text[_MARK:-_MARK]
    path = ""
    main: Module | None = None
    dependencies: list[Module] = []
    settings: dict[str, str] = {}
    last_is_main = False
    for line in text.decode("utf-8", "replace").split("\n"):
        word, _, rest = line.partition("\t")
        if word == "path":
            path = rest
        elif word == "mod":
            main, last_is_main = _module(rest), True
        elif word == "dep":
            dependencies.append(_module(rest))
            last_is_main = False
        elif word == "=>":
            if last_is_main and main is not None:
                main = Module(main.path, main.version, main.sum, _module(rest))
            elif dependencies:
                old = dependencies[-1]
                dependencies[-1] = Module(old.path, old.version, old.sum, _module(rest))
        elif word == "build":
            key, value = _setting(rest)
            settings[key] = value
    return BuildInfo(version, path, main, tuple(dependencies), MappingProxyType(settings))


def _module(rest: str) -> Module:
    path, version, digest, *_ = (*rest.split("\t"), "", "")
    return Module(path, version, digest)


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|`([^`]*)`')
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_CONTROL = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _setting(rest: str) -> tuple[str, str]:
    """`key=value`, either of them quoted as a Go string where it holds spaces or quotes."""
    match = _QUOTED.match(rest)
    if match and rest[match.end() : match.end() + 1] == "=":
        return _unquote(match[0]), _unquote(rest[match.end() + 1 :])
    key, _, value = rest.partition("=")
    return key, _unquote(value)


def _unquote(text: str) -> str:
    match = _QUOTED.fullmatch(text)
    if match is None:
        return text
    return match[2] if match[2] is not None else _ESCAPE.sub(_unescape, match[1])


def _unescape(match: re.Match[str]) -> str:
    hexadecimal = match[1] or match[2] or match[3]
    if hexadecimal:
        value = int(hexadecimal, 16)
        return chr(value) if value <= 0x10FFFF else "\ufffd"
    return chr(int(match[4], 8)) if match[4] else _CONTROL.get(match[5], match[5])
