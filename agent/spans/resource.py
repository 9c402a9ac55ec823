"""The OpenTelemetry resource of a traced process: who it says it is, who systemd says it is, else its name.

Attribute names follow the OpenTelemetry semantic conventions 1.44 (resource: service, process, host, os,
telemetry). Left out on purpose: `process.command`, `process.command_line` and `process.command_args`, since
arguments may hold secrets, and `process.creation.time`, since what the kernel tells is relative to the boot,
whose own time moves when the clock is set.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import socket
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from agent import __version__
from agent.config import Resources
from agent.config.values import parse_pairs

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

AttributeValue = str | int | bool

# The namespace that the conventions prescribe for a service.instance.id derived from other ids (semantic
# conventions, "service.instance.id").
_INSTANCE_NAMESPACE = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")
# Linux bounds arguments and environment together to 6 MiB (fs/exec.c, bprm_stack_limits) for any sane stack
# limit.
_MAX_ENVIRON = 6 << 20
_MAX_SMALL_FILE = 64 << 10
_NOTHING_DECLARED = Resources()
# Not for anybody to override: who made these spans. The language is that of the traced program, by which backends
# choose how to show a service; gospan isn't the OpenTelemetry SDK, so it must not call itself "opentelemetry" (semantic
# conventions, "telemetry.sdk.name").
_TELEMETRY: Mapping[str, AttributeValue] = {
    "telemetry.sdk.name": "gospan",
    "telemetry.sdk.language": "go",
    "telemetry.sdk.version": __version__,
    "telemetry.distro.name": "gospan",
    "telemetry.distro.version": __version__,
}
# platform.machine() to the values of host.arch.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is the same for every process of the machine. `boot_id` tells two boots apart."""

    name: str
    id: str
    arch: str
    boot_id: str

    @classmethod
    def read(cls, *, root: Path = Path("/")) -> Host:
        """Read the host's identity. What can't be read is left empty, and its attribute out.

        host.id is the machine id as it is (semantic conventions, "host", "Collecting host.id from
        non-containerized systems": /etc/machine-id, else /var/lib/dbus/machine-id).
        """
        machine_id = _text(root / "etc/machine-id") or _text(root / "var/lib/dbus/machine-id")
        machine = platform.machine()
        return cls(
            name=socket.gethostname(),
            id=machine_id if re.fullmatch("[0-9a-f]{32}", machine_id) else "",
            arch=_ARCHITECTURES.get(machine, machine),
            boot_id=_text(root / "proc/sys/kernel/random/boot_id"),
        )


@dataclass(frozen=True, slots=True)
class ProcessResource:
    """A process's resource: attributes by name, and what was wrong with the process's own declarations."""

    attributes: Mapping[str, AttributeValue]
    warnings: tuple[str, ...] = ()

    @property
    def service_name(self) -> str:
        """The service's name, which every resource has."""
        return str(self.attributes["service.name"])

    def message(self) -> Resource:
        """Give the resource as OTLP's message, attributes in the order of their names."""
        return Resource(
            attributes=[
                KeyValue(key=key, value=_value(self.attributes[key])) for key in sorted(self.attributes)
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What the caller knows of the executable from its build info. Empty where unknown."""

    go_version: str = ""
    service_version: str = ""


def describe(
    pid: int,
    host: Host,
    *,
    build: Build = Build(),
    declared: Resources = _NOTHING_DECLARED,
    procfs: Path = Path("/proc"),
) -> ProcessResource | None:
    """Describe a running process; None if there is none of this number, or it ended while being read.

    Where sources disagree, the later of these counts: what was found out, what the agent's configuration
    declares, what the process's own environment declares. For the service's name that is: executable, systemd
    unit, configuration, environment. What may not be read (another user's environment, without privileges) is
    as if it weren't there.
    """
    process = procfs / str(pid)
    started = _start_time(process)
    if started is None:
        return None
    executable = _link(process / "exe").removesuffix(" (deleted)")
    name = executable.rpartition("/")[2] or _text(process / "comm") or "unknown_service:go"
    unit = unit_of(_lines(process / "cgroup"))
    own, warnings = _own_attributes(_environment(process / "environ"))

    attributes = _found_out(pid, executable, name, host, build) | {
        "service.instance.id": _instance_id(host, pid, started),
        "process.owner": _owner(process),
    }
    if service := service_of_unit(unit):
        attributes["service.name"] = service
    attributes |= _declared(declared) | own | dict(_TELEMETRY)
    # A number that was given to another process while we read would mix two processes up.
    if _start_time(process) != started:
        return None
    return ProcessResource({key: value for key, value in attributes.items() if value != ""}, warnings)


def describe_ended(
    pid: int,
    path: str,
    number: int,
    host: Host,
    *,
    build: Build = Build(),
    declared: Resources = _NOTHING_DECLARED,
) -> ProcessResource:
    """Describe a process that ended before anybody could look at it, by its executable's path.

    Its unit and its own environment are not known, so its name is that of the executable, or what the configuration
    declares. `number` is one that no other process has.
    """
    attributes = _found_out(pid, path, path.rpartition("/")[2], host, build)
    attributes["service.instance.id"] = _instance_id(host, pid, number)
    attributes |= _declared(declared) | dict(_TELEMETRY)
    return ProcessResource({key: value for key, value in attributes.items() if value != ""})


def _found_out(pid: int, path: str, name: str, host: Host, build: Build) -> dict[str, AttributeValue]:
    return {
        "service.name": name,
        "service.version": build.service_version,
        "process.pid": pid,
        "process.executable.name": name,
        "process.executable.path": path,
        "process.runtime.name": "go",
        "process.runtime.version": build.go_version,
        "host.name": host.name,
        "host.id": host.id,
        "host.arch": host.arch,
        "os.type": "linux",
    }


def _declared(declared: Resources) -> dict[str, AttributeValue]:
    """What the agent's configuration says of every process."""
    attributes: dict[str, AttributeValue] = dict(declared.attributes)
    if declared.service_name:
        attributes["service.name"] = declared.service_name
    return attributes


def _own_attributes(environment: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME of the traced process; the latter goes first.

    A variable that is wrong in any part is discarded as a whole (OpenTelemetry specification, "Resource
    SDK").
    """
    warnings: tuple[str, ...] = ()
    attributes: dict[str, str] = {}
    try:
        attributes = {
            key: value for key, value in parse_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", "")) if value
        }
    except ValueError as error:
        warnings = (f"its OTEL_RESOURCE_ATTRIBUTES is ignored: it {error}",)
    name = environment.get("OTEL_SERVICE_NAME", "").strip()
    if name:
        attributes["service.name"] = name
    return attributes, warnings


# --- systemd units ------------------------------------------------------------------------------------------

# Cgroups of containers below a service: of the engine's own service, with the cgroupfs driver. What runs in
# them belongs to the container, not to the unit around it.
_CONTAINER = re.compile(r"(docker|crio|cri-containerd|containerd|kubepods|buildkit)([-.:_]|$)|[0-9a-f]{64}")
# Podman under a unit of the user's (Quadlet, --cgroups=split): that unit is the service.
_PODMAN_PAYLOAD = "libpod-payload-"
_USER_MANAGER = re.compile(r"user@\d+\.service")
_TRANSIENT = re.compile(r"run-(r[0-9a-f]{32}|u\d+|p\d+-i\d+|\d+)")
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def unit_of(cgroup_lines: Iterable[str]) -> str:
    """Find the systemd service a process runs in, as `web@1.service`; "" if none, or in a container.

    Takes the lines of /proc/PID/cgroup, `hierarchy:controllers:path` (cgroups(7)). systemd's own tree is the
    one named "name=systemd" with cgroup v1 or in hybrid mode, and the unified one, `0::`, with v2.
    """
    paths: dict[str, str] = {}
    for line in cgroup_lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "name=systemd" or (number == "0" and not controllers):
            paths[controllers] = path.removesuffix(" (deleted)")
    for controllers in ("name=systemd", ""):
        unit = _unit_of_path(paths.get(controllers, ""))
        if unit:
            return unit
    return ""


def _unit_of_path(path: str) -> str:
    """Find the innermost service in a cgroup's path.

    A service may have cgroups below its own (Delegate=), and a user's manager is a service that has the
    user's services below it: /user.slice/user-1000.slice/user@1000.service/app.slice/web.service.
    """
    # systemd prefixes a name with _ where it would clash with a file of the kernel's, such as memory.service
    # (src/basic/cgroup-util.c, cg_escape).
    parts = [part.removeprefix("_") for part in path.split("/")]
    for part in reversed(parts):
        if part.endswith(".service"):
            return "" if _USER_MANAGER.fullmatch(part) else part
        if part.endswith(".scope") or (_CONTAINER.search(part) and not part.startswith(_PODMAN_PAYLOAD)):
            return ""
    return ""


def service_of_unit(unit: str) -> str:
    r"""Name a service after its unit: foo.service is foo, web@1.service is web, a\x2db.service is a-b.

    Instances of a template are instances of one service: what tells them apart is service.instance.id. A unit
    that systemd-run made up has a name nobody chose, and gives none.
    """
    name = unit.removesuffix(".service")
    if not name or _TRANSIENT.fullmatch(name):
        return ""
    data = name.partition("@")[0].encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), data).decode("utf-8", "replace")


# --- /proc --------------------------------------------------------------------------------------------------


def _read(path: Path, limit: int = _MAX_SMALL_FILE) -> bytes:
    """Read at most `limit` bytes; nothing from what can't be read, is gone, or goes while being read."""
    with suppress(OSError), path.open("rb", buffering=0) as file:
        parts = []
        while limit > 0 and (data := file.read(min(limit, 1 << 20))):
            parts.append(data)
            limit -= len(data)
        return b"".join(parts)
    return b""


def _text(path: Path) -> str:
    return _read(path).decode("utf-8", "replace").strip()


def _lines(path: Path) -> list[str]:
    # Unit names are bytes to the kernel; what isn't UTF-8 survives as it is until it is decoded for good.
    return _read(path).decode("utf-8", "surrogateescape").splitlines()


def _link(path: Path) -> str:
    with suppress(OSError):
        return os.fsencode(path.readlink()).decode("utf-8", "replace")
    return ""


def _start_time(process: Path) -> int | None:
    """Read when a process started, in clock ticks since boot; None if there is no such process.

    Field 22 of /proc/PID/stat, counted from the last parenthesis, since a name may have any in it (proc(5)).
    """
    fields = _read(process / "stat").rpartition(b")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[19].isdigit() else None


def _environment(path: Path) -> dict[str, str]:
    """Read the OTEL_* variables a process began with. Of two, the first counts, as in Go's os.Getenv."""
    found: dict[str, str] = {}
    for entry in _read(path, _MAX_ENVIRON).split(b"\0"):
        if entry.startswith(b"OTEL_"):
            name, _, value = entry.decode("utf-8", "replace").partition("=")
            found.setdefault(name, value)
    return found


def _owner(process: Path) -> str:
    """Name the user a process acts as: the second number (effective) of Uid in /proc/PID/status."""
    for line in _lines(process / "status"):
        if line.startswith("Uid:"):
            fields = line.split()
            return _user_name(int(fields[2])) if len(fields) > 2 and fields[2].isdecimal() else ""
    return ""


@lru_cache(maxsize=256)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _instance_id(host: Host, pid: int, started: int) -> str:
    """Derive the instance's id: the same for a process whenever it is looked at, another for any other.

    The boot counts too: services started at boot get the same numbers at the same tick each time.
    """
    return str(uuid.uuid5(_INSTANCE_NAMESPACE, f"{host.id or host.name}/{host.boot_id}/{pid}/{started}"))


def _value(value: AttributeValue) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(string_value=value)
