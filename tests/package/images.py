"""Debians as their installer leaves them, with what a package of gospan depends on: cached, made by debootstrap."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from package.deb import depends
from tests.vm import cache
from tests.vm.archive import MIRROR_VARIABLE, find_mirror
from tests.vm.tools import KEYRINGS, call, require

# init, and what the tests look with.
_PACKAGES = ("systemd", "systemd-sysv", "dbus", "udev", "iproute2", "procps", "curl")
# With a known machine-id the boot isn't the first one, which asks questions.
_FILES = {
    "etc/machine-id": "5f0c1d3a9b6e4d7c8a2b3c4d5e6f7081\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}
# What apt has fetched. All that a package depends on is there, and apt would read the list of all that there is each
# time, which takes an emulated processor a minute.
_LEFT_OUT = ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*")


def debian(suite: str, arch: str = "amd64") -> Path:
    """The root directory of a Debian `suite` ("bookworm"); nobody may write to it. Raises VmError."""
    packages = sorted({*_PACKAGES, *_names(depends())})
    digest = hashlib.sha256(repr((packages, _FILES, _LEFT_OUT)).encode()).hexdigest()[:12]
    home = cache.directory("images") / f"{suite}-{arch}-{digest}"
    if not home.exists():
        require("debootstrap", "debian-archive-keyring")
        keyring = next(path for path in KEYRINGS if path.exists())
        sys.stderr.write(f"installing Debian {suite}\n")
        with cache.filling(home) as root:
            command = ["debootstrap", "--variant=minbase", f"--arch={arch}", f"--keyring={keyring}"]
            command += [f"--include={','.join(packages)}", suite, str(root), find_mirror()]
            hint = f"another mirror is set by {MIRROR_VARIABLE}=URL; the log is in {root}/debootstrap"
            call(command, what=f"installing Debian {suite}", hint=hint)
            for name, text in _FILES.items():
                (root / name).write_text(text)
            for pattern in _LEFT_OUT:
                for path in root.glob(pattern):
                    path.unlink()
    return home


def _names(relations: list[str]) -> set[str]:
    """The packages that a dependency field names, the first where there is a choice."""
    return {re.split(r"[ (|]", relation, maxsplit=1)[0] for relation in relations}
