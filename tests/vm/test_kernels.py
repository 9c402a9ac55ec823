from pathlib import Path

import pytest

from tests.vm import kernels
from tests.vm.kernels import Series, newest
from tests.vm.tools import VmError

IMAGES = [
    "linux-image-6.1.0-9-cloud-amd64",
    "linux-image-6.1.0-50-cloud-amd64",
    "linux-image-6.1.0-51-cloud-amd64-unsigned",
    "linux-image-6.1.0-52-cloud-amd64-dbg",
    "linux-image-6.1.0-53-amd64",
    "linux-image-6.1.0-54-cloud-arm64",
    "linux-image-6.12.107+deb13-cloud-amd64",
    "linux-image-cloud-amd64",
    "linux-headers-6.1.0-60-cloud-amd64",
]


def test_the_newest_release_of_a_series_by_number() -> None:
    assert newest(IMAGES, Series("6.1", "bookworm"), "amd64") == ["linux-image-6.1.0-50-cloud-amd64"]
    assert newest(IMAGES, Series("6.1", "bookworm"), "arm64") == ["linux-image-6.1.0-54-cloud-arm64"]
    assert newest(IMAGES, Series("6.12", "trixie"), "amd64") == ["linux-image-6.12.107+deb13-cloud-amd64"]
    assert newest(IMAGES, Series("5.10", "bullseye"), "amd64") == []


def test_a_pinned_release_is_not_replaced_by_a_newer_one() -> None:
    names = ["linux-image-5.10.0-30-cloud-amd64", "linux-image-5.10.0-32-cloud-amd64"]
    assert newest(names, Series("5.10", "bullseye", pinned="5.10.0-30"), "amd64") == names[:1]
    assert newest(names[1:], Series("5.10", "bullseye", pinned="5.10.0-30"), "amd64") == []


def test_a_split_kernel_is_a_pair_and_half_a_pair_is_nothing() -> None:
    names = [
        *("linux-image-7.2.12+deb13-cloud-amd64", "linux-image-7.3.4+deb13-cloud-amd64"),
        *("linux-binary-7.2.12+deb13-cloud-amd64", "linux-modules-7.2.12+deb13-cloud-amd64"),
        *("linux-binary-unsigned-7.3.4+deb13-cloud-amd64", "linux-modules-7.3.4+deb13-cloud-amd64"),
    ]
    pair = ["linux-binary-7.2.12+deb13-cloud-amd64", "linux-modules-7.2.12+deb13-cloud-amd64"]
    assert newest(names, Series("7.x", "trixie-backports"), "amd64") == pair
    names.append("linux-binary-7.3.4+deb13-cloud-amd64")
    assert newest(names, Series("7.x", "trixie-backports"), "amd64") == [
        name.replace("2.12", "3.4") for name in pair
    ]


def test_releases_compare_by_their_numbers() -> None:
    releases = ["7.10.1+deb13", "7.9.12+deb13", "7.9.2+deb13"]
    assert sorted(releases, key=kernels.version) == ["7.9.2+deb13", "7.9.12+deb13", "7.10.1+deb13"]


def _cached(cache: Path, release: str) -> None:
    home = cache / "gospan/kernels/amd64" / release
    home.mkdir(parents=True)
    (home / "release").write_text(f"{release}-cloud-amd64\n")


def test_a_cached_kernel_is_used_without_looking_for_newer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")  # neither apt nor a mirror can be asked
    for release in ("6.1.0-9", "6.1.0-50", "6.12.107+deb13", "5.10.0-30", "5.10.0-32"):
        _cached(tmp_path, release)
    assert kernels.fetch("6.1").release == "6.1.0-50-cloud-amd64"
    assert kernels.fetch("6.12").vmlinuz == tmp_path / "gospan/kernels/amd64/6.12.107+deb13/vmlinuz"
    assert kernels.fetch("5.10").release == "5.10.0-30-cloud-amd64"
    with pytest.raises(VmError, match=r"install with: apt-get install .*apt"):
        kernels.fetch("7.x")


def test_an_unknown_kernel_names_the_known_ones() -> None:
    with pytest.raises(VmError, match=r"no kernel 4\.19 for amd64\n.*5\.10, 6\.1"):
        kernels.fetch("4.19")
    with pytest.raises(VmError, match=r"no kernel 6\.1 for s390x"):
        kernels.fetch("6.1", "s390x")
