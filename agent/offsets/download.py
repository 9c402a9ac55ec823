"""Fetching a table over HTTPS, with an ETag so that one that is here already isn't fetched again.

Proxies are taken from the environment (HTTPS_PROXY, NO_PROXY).
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from agent import __version__
from agent.offsets.source import MAX_SIGNATURE_FILE, Fetched, FetchError
from agent.offsets.table import MAX_SIZE

TIMEOUT = 20.0
"""Seconds that a server may be silent."""

_DEADLINE = 300.0
"""Seconds that a whole answer may take."""

_CHUNK = 64 << 10
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)


def fetch(url: str, *, etag: str = "", ca_file: str = "") -> Fetched | None:
    """Fetch a table and its signature, which is beside it; None if the server says that `etag` still holds.

    `ca_file` has the authorities to trust instead of the system's. Raises FetchError.
    """
    with session(ca_file) as web:
        headers = {"Accept-Encoding": "identity"} | ({"If-None-Match": etag} if etag else {})
        with _get(web, url, headers) as answer:
            if answer.status_code == requests.codes.not_modified and etag:
                return None
            table = _body(answer, url, MAX_SIZE)
            tag = answer.headers.get("ETag", "")
        beside = signature_url(url)
        with _get(web, beside, {"Accept-Encoding": "identity"}) as answer:
            signature = _body(answer, beside, MAX_SIGNATURE_FILE)
    return Fetched(table, signature, url, tag)


def signature_url(url: str) -> str:
    """Where the signature of a table is: at its path with `.sig` behind."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path}.sig"))


class _Patient(HTTPAdapter):
    """Waits for every request as long as TIMEOUT says, whoever makes it, and for none longer."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        options["timeout"] = options.get("timeout") or TIMEOUT
        return super().send(request, **options)


def session(ca_file: str = "") -> requests.Session:
    """Make a session that speaks HTTPS only, and trusts the authorities of `ca_file`, else the system's.

    Raises FetchError if the file can't be used.
    """
    web = requests.Session()
    web.verify = ca_file or next((path for path in _BUNDLES if Path(path).exists()), True)
    if ca_file:
        try:
            ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or "it has no certificate (PEM)"
            raise FetchError(f"{ca_file}: {reason}") from None
    web.headers["User-Agent"] = f"gospan/{__version__}"
    # Otherwise a ~/.netrc would replace the credentials that were given.
    web.auth = _as_it_is
    web.max_redirects = 5
    web.mount("https://", _Patient())
    # No adapter, no plain HTTP: not by a redirect either.
    del web.adapters["http://"]
    return web


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _get(web: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    try:
        return web.get(url, headers=headers, stream=True, verify=web.verify)
    except requests.RequestException as error:
        raise FetchError(f"{url}: {reason_of(error)}") from None


def _body(answer: requests.Response, url: str, limit: int) -> bytes:
    if answer.status_code != requests.codes.ok:
        raise FetchError(f"{url}: the server answers {answer.status_code} {answer.reason}")
    return read_body(answer, url, limit)


def read_body(answer: requests.Response, what: str, limit: int) -> bytes:
    """Read an answer's body of up to `limit` bytes; more is not even fetched. Raises FetchError."""
    deadline = time.monotonic() + _DEADLINE
    data = bytearray()
    try:
        for chunk in answer.iter_content(_CHUNK):
            data += chunk
            if len(data) > limit:
                raise FetchError(f"{what}: is larger than {limit >> 10} KiB, so it isn't what it should be")
            if time.monotonic() > deadline:
                raise FetchError(f"{what}: took longer than {_DEADLINE:.0f} s")
    except requests.RequestException as error:
        raise FetchError(f"{what}: {reason_of(error)}, after {len(data)} bytes") from None
    return bytes(data)


def reason_of(error: BaseException) -> str:
    """Say in a few words why a request failed: the library wraps the reason several times."""
    if isinstance(error, requests.exceptions.InvalidSchema | requests.exceptions.InvalidURL):
        return "only https:// is spoken"
    seen: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            pending += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    for one in seen:
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate isn't trusted: {one.verify_message}"
    for one in seen:
        if isinstance(one, OSError) and one.strerror and not isinstance(one, requests.RequestException):
            return one.strerror
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT:.0f} s"
    return str(seen[-1] if len(seen) > 1 else error) or type(error).__name__
