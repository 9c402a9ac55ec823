"""`gospan offsets publish`, and pulling what it made from a real registry, as any registry tool has pushed it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from agent.offsets.trust import load_private_key, sign
from tests.offsets.conftest import Ended, Offsets, Site, table_of
from tests.offsets.registry import PASSWORD, USER, Registry, serving_registry, token_server, with_password
from tests.support.authority import Authority

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"


@pytest.fixture(scope="module")
def registry(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One that asks for a password."""
    directory = tmp_path_factory.mktemp("registry")
    with serving_registry(authority, directory, with_password(directory)) as running:
        yield running


@pytest.fixture
def published(site: Site, tmp_path: Path) -> Path:
    return publish(site, tmp_path / "published", table_of("2090-01-01"))


def publish(site: Site, directory: Path, table: bytes, *words: str) -> Path:
    file = directory.with_suffix(".json")
    file.write_bytes(table)
    command = ["offsets", "publish", "--key", str(site.private), "--table", str(file), "-o", str(directory)]
    assert main([*command, *words]) == 0
    return directory


def words(registry: Registry, tmp_path: Path, tag: str = "latest", **more: str) -> list[str]:
    """The configuration of an updater that pulls a tag."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    settings = {
        "mode": "image",
        "image": f"{registry.name}:{tag}",
        "ca_file": str(registry.authority.ca),
        "username": USER,
        "password_file": str(tmp_path / "password"),
    } | more
    return [word for name, value in settings.items() for word in ("--set", f"offsets.update.{name}={value}")]


def assert_taken(done: Ended, site: Site, table: bytes) -> None:
    assert (done.status, done.err) == (0, "")
    assert site.active.read_bytes() == table


def test_publishing_is_reproducible(site: Site, published: Path, tmp_path: Path) -> None:
    again = publish(site, tmp_path / "again", table_of("2090-01-01"))
    files = sorted(path.relative_to(published) for path in published.rglob("*") if path.is_file())
    assert len(files) == 7
    for name in files:
        assert (published / name).read_bytes() == (again / name).read_bytes()
    assert (published / "offsets.json.sig").read_bytes() == sign(
        table_of("2090-01-01"), [load_private_key(site.private)]
    )


@pytest.mark.parametrize("format_", ["oci", "v2s2"])
def test_pulling(
    format_: str, registry: Registry, site: Site, published: Path, offsets: Offsets, tmp_path: Path
) -> None:
    registry.push(published / "image", format_, "--format", format_)
    update = ["update", "--scheduled", *words(registry, tmp_path, format_)]
    assert_taken(offsets(*update), site, table_of("2090-01-01"))
    # The manifest's digest spares the transfer.
    assert "nothing newer" in offsets(*update).out
    new = publish(site, tmp_path / "new", table_of("2090-02-02"))
    registry.push(new / "image", format_, "--format", format_)
    assert_taken(offsets(*update), site, table_of("2090-02-02"))


def test_zstd(registry: Registry, site: Site, offsets: Offsets, tmp_path: Path) -> None:
    made = publish(site, tmp_path / "zstd", table_of("2090-01-01"), "--compression", "zstd")
    registry.push(made / "image", "zstd")
    assert_taken(offsets("update", *words(registry, tmp_path, "zstd")), site, table_of("2090-01-01"))


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_indexes(
    kind: str, registry: Registry, site: Site, published: Path, offsets: Offsets, tmp_path: Path
) -> None:
    registry.push(published / "image", kind, "--format", "oci" if kind == "oci" else "v2s2")
    image = read_manifest(registry, kind)
    index = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json"
        if kind == "oci"
        else f"{DOCKER}.distribution.manifest.list.v2+json",
        "manifests": [
            image | {"platform": {"os": "linux", "architecture": name}} for name in ("s390x", "arm64")
        ],
    }
    registry.manifest(index, "index")
    assert_taken(offsets("update", *words(registry, tmp_path, "index")), site, table_of("2090-01-01"))


def read_manifest(registry: Registry, tag: str) -> dict[str, Any]:
    """The descriptor of what a tag leads to, by skopeo."""
    import hashlib

    command = ["skopeo", "inspect", "--raw", "--cert-dir", str(registry.certificates)]
    command += ["--creds", f"{USER}:{PASSWORD}", f"docker://{registry.name}:{tag}"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    return {
        "mediaType": json.loads(data)["mediaType"],
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "size": len(data),
    }


def artifact(registry: Registry, files: dict[str, bytes], tag: str) -> None:
    """Push files as an artifact, as `oras push` does."""
    layers = [
        registry.blob(data, "application/octet-stream", annotations={"org.opencontainers.image.title": name})
        for name, data in files.items()
    ]
    empty = registry.blob(b"{}", "application/vnd.oci.empty.v1+json")
    document = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": empty, "layers": layers}
    registry.manifest(document, tag)


def test_an_artifact(registry: Registry, site: Site, offsets: Offsets, tmp_path: Path) -> None:
    table = table_of("2090-01-01")
    signature = sign(table, [load_private_key(site.private)])
    artifact(registry, {"offsets.json": table, "offsets.json.sig": signature}, "artifact")
    assert_taken(offsets("update", *words(registry, tmp_path, "artifact")), site, table)


def test_docker_config(
    registry: Registry, site: Site, published: Path, offsets: Offsets, tmp_path: Path
) -> None:
    registry.push(published / "image", "latest")
    config = tmp_path / "config.json"
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config.write_text(json.dumps({"auths": {f"localhost:{registry.port}": {"auth": auth}}}))
    given = words(registry, tmp_path, username="", password_file="", docker_config=str(config))
    assert_taken(offsets("update", *given), site, table_of("2090-01-01"))


@pytest.mark.parametrize("known", [True, False], ids=["by name", "anonymous"])
def test_tokens(
    known: bool,
    authority: Authority,
    site: Site,
    published: Path,
    offsets: Offsets,
    tmp_path: Path,
) -> None:
    (tmp_path / "registry").mkdir()
    with (
        token_server(authority) as auth,
        serving_registry(authority, tmp_path / "registry", auth) as registry,
    ):
        registry.push(published / "image", "latest")
        who = {} if known else {"username": "", "password_file": ""}
        given = words(registry, tmp_path, **who)
        assert_taken(offsets("update", *given), site, table_of("2090-01-01"))
        if known:
            (tmp_path / "password").write_text("wrong")
            assert offsets("update", *given, "--force").failed("the registry answers 401 Unauthorized")


def test_what_goes_wrong(
    registry: Registry, site: Site, published: Path, offsets: Offsets, tmp_path: Path
) -> None:
    registry.push(published / "image", "latest")
    table = table_of("2090-01-01")
    assert_taken(offsets("update", *words(registry, tmp_path)), site, table)

    def fails(reason: str, tag: str = "latest", **more: str) -> None:
        done = offsets("update", "--force", *words(registry, tmp_path, tag, **more))
        assert done.failed(reason), done
        assert site.active.read_bytes() == table

    fails("the registry answers 404 Not Found", "missing")
    fails("a username and a password are needed", username="", password_file="")
    fails("its certificate isn't trusted", ca_file="/etc/ssl/certs/ca-certificates.crt")
    fails("names no registry", image="gospan/offsets")
    fails("Connection refused", image="localhost:1/gospan/offsets")
    big = {"offsets.json": b" " * ((16 << 20) + 1), "offsets.json.sig": b""}
    artifact(registry, big, "big")
    fails("has more than 16 MiB", "big")
    artifact(registry, {"offsets.json": b" " * ((32 << 20) + 1)}, "huge")
    fails("no layer of up to 32 MiB has offsets.json", "huge")
    artifact(registry, {"offsets.json": table_of("2090-02-02"), "offsets.json.sig": b"x y\n"}, "forged")
    fails("and not by a trusted key", "forged")
    layer = registry.blob(b"\x1f\x8bnonsense", f"{OCI}.layer.v1.tar+gzip")
    empty = registry.blob(b"{}", "application/vnd.oci.empty.v1+json")
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": empty,
        "layers": [layer],
    }
    registry.manifest(document, "damaged")
    fails("it is damaged", "damaged")
    (tmp_path / "wrong").write_text("wrong")
    fails("the registry answers 401 Unauthorized", password_file=str(tmp_path / "wrong"))
