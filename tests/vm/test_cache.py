from pathlib import Path

import pytest

from tests.vm import cache


def test_the_cache_is_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.directory("kernels") == tmp_path / "gospan" / "kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.directory("kernels") == Path.home() / ".cache" / "gospan" / "kernels"


def test_a_directory_appears_when_it_is_complete(tmp_path: Path) -> None:
    home = tmp_path / "shelf" / "6.1.0-50"
    with cache.filling(home) as root:
        (root / "vmlinuz").write_bytes(b"image")
        assert not home.exists()
    assert (home / "vmlinuz").read_bytes() == b"image"
    assert list(home.parent.iterdir()) == [home]


def test_what_was_interrupted_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "shelf" / "6.1.0-50"
    with pytest.raises(KeyboardInterrupt), cache.filling(home) as root:
        (root / "vmlinuz").write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(home.parent.iterdir()) == []


def test_the_first_of_two_stays(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with cache.filling(home) as slow:
        (slow / "by").write_text("slow")
        with cache.filling(home) as fast:
            (fast / "by").write_text("fast")
    assert (home / "by").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [home]
