from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest

from agent.kernel import libbpf
from agent.kernel.errors import KernelError
from agent.kernel.maps import Map, Replace
from agent.kernel.objects import LoadedObject, LoadOptions, load_object

pytestmark = pytest.mark.kernel


@pytest.fixture
def loaded(probes: str) -> Iterator[LoadedObject]:
    with load_object(probes, LoadOptions(programs=["count"])) as opened:
        yield opened


def key(number: int) -> bytes:
    return struct.pack("<I", number)


def value(number: int) -> bytes:
    return struct.pack("<Q", number)


@pytest.fixture
def numbers(loaded: LoadedObject) -> Map:
    return loaded.map("hits_by_process")


def test_one_element(numbers: Map) -> None:
    assert numbers.lookup(key(1)) is None
    assert not numbers.delete(key(1))
    numbers.update(key(1), value(5))
    assert numbers.lookup(key(1)) == value(5)
    numbers.update(key(1), value(6))
    with pytest.raises(KernelError) as caught:
        numbers.update(key(1), value(7), Replace.ADD)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(KernelError) as caught:
        numbers.update(key(2), value(7), Replace.CHANGE)
    assert caught.value.errno == errno.ENOENT
    assert numbers.lookup(key(1)) == value(6)
    assert numbers.delete(key(1))
    assert numbers.lookup(key(1)) is None


def test_full_map_says_what_to_do(numbers: Map) -> None:
    numbers.update_many((key(one), value(one)) for one in range(1024))
    with pytest.raises(KernelError, match="it is full with 1024 entries; configure a larger one"):
        numbers.update(key(5000), value(1))


@pytest.mark.parametrize("batches", [True, False], ids=["batches", "one by one"])
def test_many_elements(numbers: Map, batches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as it is on kernels before 5.6, which refuse the commands for batches."""
    if not batches:
        for name in ("map_lookup_batch", "map_update_batch"):
            monkeypatch.setattr(libbpf, name, lambda *_args, **_options: (-errno.EINVAL, 0))
    expected = {key(one): value(one * one) for one in range(1000)}
    numbers.update_many(expected.items())
    numbers.update_many([])
    assert dict(numbers.items()) == expected
    assert len(list(numbers.items())) == 1000
    assert sorted(numbers.keys()) == sorted(expected)
    assert numbers.delete_many(numbers.keys()) == 1000
    assert numbers.delete_many([key(1)]) == 0
    assert list(numbers.items()) == []
    assert list(numbers.keys()) == []


def test_elements_of_an_array(loaded: LoadedObject) -> None:
    layouts = loaded.map("layouts")
    size = layouts.value_size
    layouts.update(key(2), b"\1" * size)
    assert dict(layouts.items()) == {key(one): bytes([one == 2]) * size for one in range(4)}
    assert list(layouts.keys()) == [key(one) for one in range(4)]
    with pytest.raises(KernelError, match="the map layouts: Argument list too long"):
        layouts.update(key(4), bytes(size))


def test_value_of_each_processor(loaded: LoadedObject) -> None:
    each = loaded.map("each")
    count = libbpf.possible_cpus()
    assert each.per_cpu
    assert each.stored_size == 16 * count
    each.update(key(1), b"".join(bytes([cpu]) * 12 + bytes(4) for cpu in range(count)))
    assert each.lookup_each(key(1)) == [bytes([cpu]) * 12 for cpu in range(count)]
    assert each.lookup_each(key(2)) is None
    assert [one for one, _ in each.items()] == [key(1)]
    with pytest.raises(KernelError, match="has one value for all processors"):
        loaded.map("layouts").lookup_each(key(1))


def test_wrong_sizes_never_reach_the_kernel(numbers: Map) -> None:
    with pytest.raises(KernelError, match="a key of the map hits_by_process has 4 bytes, not 3"):
        numbers.lookup(b"123")
    with pytest.raises(KernelError, match="a value of the map hits_by_process has 8 bytes, not 4"):
        numbers.update(key(1), b"1234")
    with pytest.raises(KernelError, match="has 8 bytes, not 9"):
        numbers.update_many([(key(1), b"123456789")])
    assert list(numbers.keys()) == []


def test_map_that_is_gone() -> None:
    gone = Map("gone", 999, 1, 4, 8, 10)
    for action in (
        lambda: gone.lookup(key(1)),
        lambda: gone.delete(key(1)),
        lambda: gone.update(key(1), value(1)),
        lambda: list(gone.keys()),
        lambda: list(gone.items()),
        lambda: gone.update_many([(key(1), value(1))]),
    ):
        with pytest.raises(KernelError, match=r"the map gone: Bad file descriptor \(EBADF\)"):
            action()
