"""The resource of processes: made-up ones, a real one, and ones that vanish."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from agent import __version__
from agent.config import Resources
from agent.spans.resource import Build, Host, describe, service_of_unit, unit_of

HOST = Host(name="vm1", id="0123456789abcdef0123456789abcdef", arch="amd64", boot_id="b00t")
BUILD = Build(go_version="go1.27.4", service_version="v1.2.3")
ID64 = "0f" * 32


def make_process(
    procfs: Path,
    *,
    pid: int = 42,
    exe: str = "/srv/shop/bin/shop",
    cgroup: str = "0::/user.slice/user-1000.slice/session-3.scope",
    environ: bytes = b"PATH=/bin\0HOME=/\0",
    started: int = 777,
) -> Path:
    process = procfs / str(pid)
    process.mkdir(parents=True, exist_ok=True)
    (process / "stat").write_bytes(b"%d (a) (b c) S " % pid + b"0 " * 18 + b"%d 0 0\n" % started)
    (process / "status").write_text("Name:\ta\nUid:\t1\t0\t0\t0\n")
    (process / "comm").write_text("shop\n")
    (process / "cgroup").write_text(cgroup + "\n")
    (process / "environ").write_bytes(environ)
    (process / "exe").unlink(missing_ok=True)
    (process / "exe").symlink_to(exe)
    return procfs


def service(procfs: Path, declared: Resources = Resources()) -> str:  # noqa: B008
    resource = describe(42, HOST, declared=declared, procfs=procfs)
    assert resource is not None
    return resource.service_name


def test_everything_about_a_process(tmp_path: Path) -> None:
    procfs = make_process(tmp_path, cgroup="0::/system.slice/web.service")
    resource = describe(42, HOST, build=BUILD, procfs=procfs)
    assert resource is not None
    instance = resource.attributes["service.instance.id"]
    assert resource.attributes == {
        "service.name": "web",
        "service.version": "v1.2.3",
        "service.instance.id": instance,
        "process.pid": 42,
        "process.executable.name": "shop",
        "process.executable.path": "/srv/shop/bin/shop",
        "process.owner": "root",
        "process.runtime.name": "go",
        "process.runtime.version": "go1.27.4",
        "host.name": "vm1",
        "host.id": HOST.id,
        "host.arch": "amd64",
        "os.type": "linux",
        "telemetry.sdk.name": "gospan",
        "telemetry.sdk.language": "go",
        "telemetry.sdk.version": __version__,
        "telemetry.distro.name": "gospan",
        "telemetry.distro.version": __version__,
    }
    message = Resource.FromString(resource.message().SerializeToString())
    kinds = {item.key: item.value.WhichOneof("value") for item in message.attributes}
    assert len(kinds) == len(resource.attributes)
    assert kinds.pop("process.pid") == "int_value"
    assert set(kinds.values()) == {"string_value"}


def test_what_is_unknown_is_left_out(tmp_path: Path) -> None:
    resource = describe(42, replace(HOST, id=""), procfs=make_process(tmp_path))
    assert resource is not None
    assert not {"host.id", "service.version", "process.runtime.version"} & set(resource.attributes)


def test_who_names_the_service(tmp_path: Path) -> None:
    assert service(make_process(tmp_path)) == "shop"
    assert service(make_process(tmp_path, exe="/srv/new (deleted)")) == "new"
    unit = "0::/system.slice/web.service"
    assert service(make_process(tmp_path, cgroup=unit)) == "web"
    assert service(tmp_path, Resources(service_name="node")) == "node"
    assert service(tmp_path, Resources(attributes=(("service.name", "attribute"),))) == "attribute"
    own = b"A=1\0OTEL_RESOURCE_ATTRIBUTES=service.name=own,team=x\0"
    assert service(make_process(tmp_path, cgroup=unit, environ=own), Resources(service_name="node")) == "own"
    both = own + b"OTEL_SERVICE_NAME=named\0OTEL_SERVICE_NAME=again\0"
    assert service(make_process(tmp_path, cgroup=unit, environ=both)) == "named"
    empty = b"OTEL_SERVICE_NAME=\0OTEL_RESOURCE_ATTRIBUTES=service.name=\0"
    assert service(make_process(tmp_path, cgroup=unit, environ=empty)) == "web"


def test_attributes_of_the_process_go_before_those_of_the_agent(tmp_path: Path) -> None:
    environ = (
        b"OTEL_RESOURCE_ATTRIBUTES=service.namespace=sh%20op, service.version=9 ,host.name=alias,"
        b"service.instance.id=i1,telemetry.sdk.name=fake\0"
    )
    declared = Resources(attributes=(("service.namespace", "agent"), ("deployment.environment.name", "prod")))
    resource = describe(
        42, HOST, build=BUILD, declared=declared, procfs=make_process(tmp_path, environ=environ)
    )
    assert resource is not None
    for name, value in {
        "service.namespace": "sh op",
        "service.version": "9",
        "host.name": "alias",
        "service.instance.id": "i1",
        "deployment.environment.name": "prod",
        "telemetry.sdk.name": "gospan",
    }.items():
        assert resource.attributes[name] == value


@pytest.mark.parametrize("value", [b"team=a,nonsense", b"=x", b"team=a,b=%ff"])
def test_wrong_attributes_are_ignored_as_a_whole_and_told(tmp_path: Path, value: bytes) -> None:
    procfs = make_process(tmp_path, environ=b"OTEL_RESOURCE_ATTRIBUTES=" + value + b"\0")
    resource = describe(42, HOST, procfs=procfs)
    assert resource is not None
    assert "team" not in resource.attributes
    assert len(resource.warnings) == 1
    assert "OTEL_RESOURCE_ATTRIBUTES is ignored" in resource.warnings[0]


def test_instance_id_is_the_process_and_nothing_else(tmp_path: Path) -> None:
    def instance(host: Host = HOST, *, pid: int = 42, started: int = 777) -> object:
        resource = describe(pid, host, procfs=make_process(tmp_path, pid=pid, started=started))
        assert resource is not None
        return resource.attributes["service.instance.id"]

    ids = [
        instance(),
        instance(pid=43),
        instance(started=778),
        instance(replace(HOST, boot_id="other")),
        instance(replace(HOST, id="f" * 32)),
    ]
    assert len(set(ids)) == len(ids)
    assert instance() == ids[0]
    assert str(ids[0])[14] == "5"


@pytest.mark.parametrize(
    ("lines", "unit"),
    [
        (["0::/system.slice/foo.service"], "foo.service"),
        (["0::/system.slice/foo.service/payload"], "foo.service"),
        (["0::/system.slice/system-web.slice/web@1.service"], "web@1.service"),
        (["0::/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service"], "foo.service"),
        (["0::/user.slice/user-1000.slice/user@1000.service/init.scope"], ""),
        (["0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-shell-7.scope"], ""),
        (["0::/user.slice/user-1000.slice/user@1000.service"], ""),
        (["0::/user.slice/user-0.slice/session-4.scope"], ""),
        (["0::/init.scope"], ""),
        (["0::/"], ""),
        ([], ""),
        (["nonsense", "", "0:"], ""),
        (["0::/system.slice/_memory.service"], "memory.service"),
        (["0::/system.slice/foo.service (deleted)"], "foo.service"),
        (["0::/../../system.slice/foo.service"], "foo.service"),
        # cgroup v1, and hybrid: systemd's own tree first, then the unified one.
        (["4:memory:/elsewhere.service", "1:name=systemd:/system.slice/foo.service", "0::/"], "foo.service"),
        (["1:name=systemd:/", "0::/system.slice/foo.service"], "foo.service"),
        (["12:cpu,cpuacct:/system.slice/foo.service"], ""),
        # Containers.
        ([f"0::/system.slice/docker-{ID64}.scope"], ""),
        ([f"0::/docker/{ID64}"], ""),
        ([f"0::/system.slice/containerd.service/kubepods-besteffort-pod1:cri-containerd:{ID64}"], ""),
        ([f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID64}.scope"], ""),
        ([f"0::/machine.slice/libpod-{ID64}.scope/container"], ""),
        ([f"0::/system.slice/web.service/libpod-payload-{ID64}"], "web.service"),
        (["0::/system.slice/docker.service"], "docker.service"),
        (["0::/machine.slice/systemd-nspawn@box.service/payload/system.slice/web.service"], "web.service"),
    ],
)
def test_units(lines: list[str], unit: str) -> None:
    assert unit_of(lines) == unit


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        ("foo.service", "foo"),
        ("web@1.service", "web"),
        ("web@.service", "web"),
        ("my-app.service", "my-app"),
        ("my.app.service", "my.app"),
        (r"foo\x2dbar.service", "foo-bar"),
        (r"caf\xc3\xa9.service", "café"),
        ("100%.service", "100%"),
        ("run-u33.service", ""),
        ("run-r0123456789abcdef0123456789abcdef.service", ""),
        ("run-p12-i13.service", ""),
        ("run-shop.service", "run-shop"),
        ("", ""),
    ],
)
def test_names_of_units(unit: str, name: str) -> None:
    assert service_of_unit(unit) == name


def test_process_that_is_gone(tmp_path: Path) -> None:
    assert describe(42, HOST, procfs=tmp_path) is None
    make_process(tmp_path)
    (tmp_path / "42" / "stat").write_bytes(b"")  # what reading one that has just ended gives
    assert describe(42, HOST, procfs=tmp_path) is None


@pytest.mark.parametrize("missing", ["status", "cgroup", "environ", "exe", "comm"])
def test_process_that_vanishes_while_being_read(tmp_path: Path, missing: str) -> None:
    procfs = make_process(tmp_path)
    (procfs / "42" / missing).unlink()
    resource = describe(42, HOST, procfs=procfs)
    assert resource is not None
    assert resource.service_name == "shop"


def test_this_very_process() -> None:
    host = Host.read()
    assert host.name == socket.gethostname()
    assert host.boot_id
    environ = {**os.environ, "OTEL_SERVICE_NAME": "child", "OTEL_RESOURCE_ATTRIBUTES": "a=" + "b" * 100_000}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environ) as child:
        while b"input" not in Path(f"/proc/{child.pid}/cmdline").read_bytes():
            pass
        resource = describe(child.pid, host)
        again = describe(child.pid, host)
        child.communicate(b"\n")
    assert resource is not None
    assert again == resource
    assert resource.service_name == "child"
    assert resource.attributes["a"] == "b" * 100_000
    assert resource.attributes["process.executable.path"] == str(Path(sys.executable).resolve())
    assert describe(child.pid, host) is None


def test_host_ids(tmp_path: Path) -> None:
    assert Host.read(root=tmp_path).id == ""
    (tmp_path / "var/lib/dbus").mkdir(parents=True)
    (tmp_path / "var/lib/dbus/machine-id").write_text("f" * 32 + "\n")
    assert Host.read(root=tmp_path).id == "f" * 32
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("uninitialized\n")
    assert Host.read(root=tmp_path).id == ""
