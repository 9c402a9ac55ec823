from pathlib import Path

import pytest

from tests.vm import tools
from tests.vm.tools import VmError


def test_all_that_is_missing_is_named_with_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(VmError) as raised:
        tools.require("qemu-system-x86_64", "qemu-system-aarch64")
    assert str(raised.value) == (
        "missing: qemu-system-x86_64, qemu-system-aarch64\n"
        "  install with: apt-get install qemu-system-arm qemu-system-x86"
    )


def test_what_is_there_is_no_error() -> None:
    tools.require("sh", "tar")


def test_the_package_of_virtiofsd_depends_on_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "VIRTIOFSD", Path("/nonexistent"))
    monkeypatch.setattr(tools, "LEGACY_VIRTIOFSD", Path("/nonexistent"))
    for debian_12, package in ((True, "qemu-system-common"), (False, "virtiofsd")):
        monkeypatch.setattr(tools, "_is_debian_12", lambda answer=debian_12: answer)
        with pytest.raises(VmError, match=f"apt-get install {package}$"):
            tools.virtiofsd()


def test_a_failing_program_is_quoted() -> None:
    with pytest.raises(VmError, match=r"^counting failed:\nthree\n  count again$"):
        tools.call(["sh", "-c", "echo three >&2; exit 3"], what="counting", hint="count again")
    assert tools.call(["echo", "one"], what="counting") == "one\n"
