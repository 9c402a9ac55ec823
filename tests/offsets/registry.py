"""A real registry, the distribution's docker-registry, on loopback: with TLS, and asking for a password or a token."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.support.authority import Authority, serving_https
from tests.support.daemon import eventually

USER, PASSWORD = "somebody", "p:ss wörd"


@dataclass(frozen=True)
class Registry:
    """A running registry; `certificates` is what skopeo trusts."""

    port: int
    authority: Authority
    certificates: Path

    @property
    def name(self) -> str:
        return f"localhost:{self.port}/gospan/offsets"

    def push(self, layout: Path, tag: str, *words: str) -> None:
        """Push an OCI image layout by a tool that knows nothing of gospan."""
        subprocess.run(
            [
                *(
                    "skopeo",
                    "--insecure-policy",
                    "copy",
                    "--quiet",
                    "--dest-cert-dir",
                    str(self.certificates),
                ),
                *("--dest-creds", f"{USER}:{PASSWORD}", *words),
                *(f"oci:{layout}:latest", f"docker://{self.name}:{tag}"),
            ],
            check=True,
            capture_output=True,
        )

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Upload a blob, and give its descriptor."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        started = self._send("POST", "blobs/uploads/")
        location = started.headers["Location"]
        mark = "&" if "?" in location else "?"
        self._checked(
            requests.put(f"{location}{mark}digest={digest}", data=data, timeout=20, **self._access()),
        )
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def manifest(self, document: Mapping[str, Any], reference: str) -> dict[str, Any]:
        """Upload a manifest or an index, and give its descriptor."""
        data = json.dumps(document).encode()
        media_type = document["mediaType"]
        self._send("PUT", f"manifests/{reference}", data=data, headers={"Content-Type": media_type})
        return {
            "mediaType": media_type,
            "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
            "size": len(data),
        }

    def _access(self) -> dict[str, Any]:
        credentials = f"{USER}:{PASSWORD}".encode()
        return {"auth": (credentials.partition(b":")[0], PASSWORD.encode()), "verify": str(self.authority.ca)}

    def _send(self, method: str, path: str, **more: Any) -> requests.Response:
        url = f"https://localhost:{self.port}/v2/gospan/offsets/{path}"
        return self._checked(requests.request(method, url, timeout=20, **self._access(), **more))

    @staticmethod
    def _checked(answer: requests.Response) -> requests.Response:
        assert answer.ok, answer.text
        return answer


@contextmanager
def serving_registry(authority: Authority, directory: Path, auth: Mapping[str, Any]) -> Iterator[Registry]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {
            "addr": f"127.0.0.1:{port}",
            "secret": "tests",
            "tls": {"certificate": str(authority.certificate), "key": str(authority.key)},
        },
        "auth": dict(auth),
    }
    file = directory / "config.yml"
    file.write_text(json.dumps(settings))  # JSON is YAML too
    certificates = directory / "certificates"
    certificates.mkdir()
    (certificates / "ca.crt").write_bytes(authority.ca.read_bytes())
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(file)], stdout=log, stderr=log)
    try:
        eventually(lambda: _answers(port) or process.poll() is not None, "the registry's start", 20)
        assert process.poll() is None, (directory / "log").read_text()
        yield Registry(port, authority, certificates)
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def with_password(directory: Path) -> dict[str, Any]:
    """What makes a registry ask for USER and PASSWORD."""
    file = directory / "htpasswd"
    line = subprocess.run(
        ["htpasswd", "-Bbn", USER, PASSWORD], check=True, capture_output=True, text=True
    ).stdout
    file.write_text(line)
    return {"htpasswd": {"realm": "tests", "path": str(file)}}


@contextmanager
def token_server(authority: Authority) -> Iterator[dict[str, Any]]:
    """What makes a registry ask for tokens, and a server that gives them: to anybody for pulling, to USER for pushing
    (distribution/docs/spec/auth/token.md, jwt.md).
    """
    certificate = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signer = key
    der = certificate.public_bytes(serialization.Encoding.DER)
    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Tokens(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            given = self.headers["Authorization"]
            if given not in (None, wanted):
                self.send_response(401)
                self.end_headers()
                return
            access = []
            for scope in query.get("scope", []):
                kind, name, actions = scope.split(":")
                allowed = [one for one in actions.split(",") if given or one == "pull"]
                access.append({"type": kind, "name": name, "actions": allowed})
            now = int(time.time())
            claims: dict[str, Any] = {
                "iss": "tests",
                "sub": USER,
                "aud": query["service"][0],
                "access": access,
                "jti": "1",
            }
            claims |= {"iat": now, "nbf": now - 10, "exp": now + 60}
            header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
            signed = b".".join(_coded(json.dumps(part).encode()) for part in (header, claims))
            r, s = decode_dss_signature(signer.sign(signed, ec.ECDSA(hashes.SHA256())))
            token = signed + b"." + _coded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
            body = json.dumps({"token": token.decode()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with serving_https(authority, Tokens) as port:
        yield {
            "token": {
                "realm": f"https://localhost:{port}/token",
                "service": "registry",
                "issuer": "tests",
                "rootcertbundle": str(authority.ca),
            }
        }


def _coded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
