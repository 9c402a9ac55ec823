"""Names of types at addresses, in full: `*net/http.body`, where the program itself only stores `*http.body`."""

from agent.executable import rtti
from agent.executable.elf import Image
from agent.executable.errors import CorruptError
from agent.executable.moduledata import Moduledata

_MAX_DEPTH = 8


class TypeNames:
    """Names types, each descriptor once."""

    def __init__(self, image: Image, module: Moduledata) -> None:
        self._image = image
        self._module = module
        self._names: dict[int, str | None] = {}
        image.keep(module.types, module.etypes)

    def at(self, address: int) -> str | None:
        """Return the name of the type described at `address`, or None if no descriptor is there."""
        if address not in self._names:
            try:
                self._names[address] = self._name(address, 0)
            except CorruptError:
                self._names[address] = None
        return self._names[address]

    def _name(self, address: int, depth: int) -> str:
        image, types = self._image, self._module.types
        if not types <= address < self._module.etypes or address % 8:
            raise CorruptError(f"has no type at {address:#x}")
        head = rtti.parse_type(image.read(address, rtti.TYPE_SIZE))
        text, _ = rtti.read_name(image, types + head.name)
        if not text or not 0 < head.kind <= 26:
            raise CorruptError(f"has no type at {address:#x}")
        if head.flags & rtti.EXTRA_STAR:
            text = text[1:]
        if head.flags & rtti.NAMED:
            package = self._package(address, head, text)
            return f"{package}.{rtti.type_part(text)}" if package else text
        if head.kind == rtti.POINTER and depth < _MAX_DEPTH:
            return "*" + self._name(image.word(address + rtti.TYPE_SIZE), depth + 1)
        return text

    def _package(self, address: int, head: rtti.Type, text: str) -> str:
        if not head.flags & rtti.UNCOMMON or "." not in text:
            return ""
        if head.kind != rtti.MAP:
            return rtti.package_path(self._image, self._module.types, address, head.kind)
        own = text.partition(".")[0]
        for _, path in rtti.map_package_paths(self._image, self._module.types, address):
            # Which size is right isn't known: a package's path nearly always ends in its name.
            if path.rpartition("/")[2] == own:
                return path
        return own
