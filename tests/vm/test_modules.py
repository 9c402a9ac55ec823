import lzma
from pathlib import Path

from tests.vm import modules


def _module(name: str, *depends: str) -> bytes:
    """The part of a .ko file that matters: its .modinfo section, among other bytes."""
    info = f"\0license=GPL\0depends={','.join(depends)}\0retpoline=Y\0name={name}\0"
    return b"\x7fELF" + bytes(range(256)) + info.encode() + bytes(64)


def test_dependencies_are_read_from_the_module() -> None:
    assert modules.dependencies(_module("virtiofs", "fuse", "virtio_ring")) == ("fuse", "virtio_ring")
    assert modules.dependencies(_module("fuse")) == ()
    assert modules.dependencies(b"\x7fELF") == ()


def test_each_comes_after_what_it_needs_and_once() -> None:
    files = {
        "virtiofs": _module("virtiofs", "fuse", "virtio", "virtio_ring"),
        "virtio_pci": _module("virtio_pci", "virtio_ring", "virtio"),
        "virtio_ring": _module("virtio_ring", "virtio"),
        "virtio": _module("virtio"),
        "fuse": _module("fuse"),
        "unrelated": _module("unrelated"),
    }
    order = modules.in_order(["virtio_pci", "virtiofs"], files.get)
    assert list(order) == ["virtio", "virtio_ring", "virtio_pci", "fuse", "virtiofs"]
    assert order["fuse"] == files["fuse"]


def test_what_has_no_file_is_in_the_kernel() -> None:
    assert list(modules.in_order(["fuse", "overlay"], {"overlay": _module("overlay", "fuse")}.get)) == [
        "overlay"
    ]


def test_modules_that_need_each_other_come_to_an_end() -> None:
    files = {"a": _module("a", "b"), "b": _module("b", "a")}
    assert sorted(modules.in_order(["a"], files.get)) == ["a", "b"]


def test_files_are_found_by_either_spelling_and_uncompressed(tmp_path: Path) -> None:
    folder = tmp_path / "kernel/drivers"
    folder.mkdir(parents=True)
    (folder / "virtio-rng.ko.xz").write_bytes(lzma.compress(_module("virtio_rng", "rng-core")))
    (folder / "rng-core.ko").write_bytes(_module("rng_core"))
    assert modules.collect(tmp_path, ["virtio_rng"]) == {
        "rng_core": _module("rng_core"),
        "virtio_rng": _module("virtio_rng", "rng-core"),
    }
