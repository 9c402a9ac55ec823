"""Pulling a table from a registry: an OCI artifact or image, by the OCI distribution specification 1.1.

References and authentication, tokens and docker's config.json with its credential helpers included, are those of the
library oras. It has no limits, no time-outs of its own and no image indexes, so the transfers are ours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import oras.auth
import oras.auth.base
import oras.container
import oras.logger
import requests

from agent.offsets.download import read_body, reason_of, session
from agent.offsets.layers import LAYER_LIMIT, LayerError, files_in
from agent.offsets.source import SIGNATURE_NAME, TABLE_NAME, Fetched, FetchError
from agent.paths import architecture

_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest, as the distribution specification has it."""

_MAX_LAYERS = 128
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and password, or docker's config.json; neither where the registry asks for none."""

    username: str = ""
    password: str = ""
    docker_config: str = ""


_NOBODY = Credentials()


def pull(
    reference: str, *, credentials: Credentials = _NOBODY, ca_file: str = "", known: str = ""
) -> Fetched | None:
    """Pull table and signature from an image such as `registry.example.com/gospan/offsets:latest`.

    None if the reference still leads to `known`, a manifest's digest. Nothing but the registry is asked, and where that
    refers to: the server of its tokens, and redirects of its own. Raises FetchError.
    """
    # What went wrong is told once, and by us.
    oras.logger.logger.logger.disabled = True
    host, slash, _ = reference.partition("/")
    try:
        container = oras.container.Container(reference)
    except ValueError:
        slash = ""
    if not slash or not set(host) & set(".:"):
        # Others would look on a public registry then.
        raise FetchError(f"{reference}: names no registry; write registry.example.com/gospan/offsets:latest")
    with session(ca_file) as web:
        registry = _Registry(web, container, _authentication(web, container, credentials))
        digest, manifest = registry.manifest(container.digest or container.tag)
        if known and digest == known:
            return None
        found = _find(registry, registry.image(manifest))
    missing = next((name for name in (TABLE_NAME, SIGNATURE_NAME) if name not in found), None)
    if missing:
        raise FetchError(f"{reference}: no layer of up to {LAYER_LIMIT >> 20} MiB has {missing}")
    return Fetched(found[TABLE_NAME], found[SIGNATURE_NAME], reference, digest)


def _authentication(
    web: requests.Session, container: oras.container.Container, credentials: Credentials
) -> oras.auth.base.AuthBackend:
    """Ask the registry how it wants to be asked; a registry that wants nothing is asked without anything."""
    url = f"https://{container.registry}/v2/"
    try:
        with web.get(url, verify=web.verify, stream=True) as answer:
            challenge = answer.headers.get("WWW-Authenticate", "")
    except requests.RequestException as error:
        raise FetchError(f"{url}: {reason_of(error)}") from None
    kind = "basic" if challenge.lower().startswith("basic") else "token"
    auth = oras.auth.get_auth_backend(kind, web, tls_verify=web.verify)
    if credentials.username:
        auth.set_basic_auth(credentials.username, credentials.password)
    elif challenge:
        try:
            auth.load_configs(container, [credentials.docker_config] if credentials.docker_config else None)
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise FetchError(f"{container.registry}: docker's config.json can't be used: {error}") from None
        if kind == "basic" and not hasattr(auth, "_basic_auth"):
            raise FetchError(f"{url}: a username and a password are needed; set them in [offsets.update]")
    return auth


@dataclass(slots=True)
class _Registry:
    """Manifests and blobs of one repository."""

    web: requests.Session
    container: oras.container.Container
    auth: oras.auth.base.AuthBackend

    def manifest(self, reference: str) -> tuple[str, dict[str, Any]]:
        """Give the digest and the contents of a manifest or index."""
        url = f"https://{self.container.manifest_url(reference)}"
        accept = ", ".join(_MANIFESTS + _INDEXES)
        with self._get(url, {"Accept": accept}) as answer:
            data = read_body(answer, url, _MANIFEST_LIMIT)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if reference.startswith("sha256:") and digest != reference:
            raise FetchError(f"{url}: is something else than its digest says")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise FetchError(f"{url}: is no manifest")
        return digest, document

    def image(self, manifest: dict[str, Any], depth: int = 0) -> dict[str, Any]:
        """Follow an index to the image for this machine, or to any: a table has no architecture."""
        if "manifests" not in manifest:
            return manifest
        if depth > 1:
            raise FetchError(f"{self.container}: its indexes lead from one to another")
        images = [
            one
            for one in _objects(manifest, "manifests")
            if one.get("mediaType") in (*_MANIFESTS, *_INDEXES)
            and "vnd.docker.reference.type" not in (one.get("annotations") or {})
        ]
        if not images:
            raise FetchError(f"{self.container}: its index has no image")
        ours = {"os": "linux", "architecture": architecture()}
        images.sort(key=lambda one: not ours.items() <= (one.get("platform") or {}).items())
        _, found = self.manifest(_digest(images[0], self.container))
        return self.image(found, depth + 1)

    def blob(self, digest: str, size: int) -> bytes:
        """Fetch a blob of `size` bytes."""
        url = f"https://{self.container.get_blob_url(digest)}"
        with self._get(url, {"Accept-Encoding": "identity"}) as answer:
            data = read_body(answer, url, size)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise FetchError(f"{url}: is something else than its digest says, {len(data)} of {size} bytes")
        return data

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        try:
            if getattr(self.auth, "token", None):
                headers = headers | self.auth.get_auth_header()
            answer = self.web.get(url, headers=headers, verify=self.web.verify, stream=True)
            if answer.status_code == requests.codes.unauthorized:
                answer.close()
                headers, again = self.auth.authenticate_request(answer, headers)
                if again:
                    answer = self.web.get(url, headers=headers, verify=self.web.verify, stream=True)
        except requests.RequestException as error:
            raise FetchError(f"{url}: {reason_of(error)}") from None
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise FetchError(f"{url}: the registry asks for something unknown: {error}") from None
        if answer.status_code != requests.codes.ok:
            answer.close()
            raise FetchError(f"{url}: the registry answers {answer.status_code} {answer.reason}")
        return answer


def _find(registry: _Registry, manifest: dict[str, Any]) -> dict[str, bytes]:
    """Look for table and signature in the layers, from the last one on; none is fetched in vain."""
    found: dict[str, bytes] = {}
    for layer in reversed(_objects(manifest, "layers")[:_MAX_LAYERS]):
        digest, size = _digest(layer, registry.container), layer.get("size")
        if not isinstance(size, int) or not 0 <= size <= LAYER_LIMIT:
            continue
        annotations = layer.get("annotations")
        title = annotations.get("org.opencontainers.image.title") if isinstance(annotations, dict) else None
        inside = _inline(layer, digest) or registry.blob(digest, size)
        try:
            files = files_in(inside, str(layer.get("mediaType")), title, (TABLE_NAME, SIGNATURE_NAME))
        except LayerError as error:
            raise FetchError(f"{registry.container}: layer {digest}: {error}") from None
        found = files | found
        if TABLE_NAME in found and SIGNATURE_NAME in found:
            break
    return found


def _inline(layer: dict[str, Any], digest: str) -> bytes | None:
    """A small layer's contents, where the manifest has them itself (descriptor, `data`)."""
    try:
        data = base64.b64decode(layer["data"], validate=True)
    except (LookupError, TypeError, ValueError):
        return None
    return data if f"sha256:{hashlib.sha256(data).hexdigest()}" == digest else None


def _objects(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return list(_only_objects(document.get(name)))


def _only_objects(found: object) -> Iterator[dict[str, Any]]:
    for one in found if isinstance(found, list) else []:
        if isinstance(one, dict):
            yield one


def _digest(descriptor: dict[str, Any], container: oras.container.Container) -> str:
    digest = descriptor.get("digest")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise FetchError(f"{container}: refers to {str(digest)[:80]!a}, which is no SHA-256 digest")
    return digest
