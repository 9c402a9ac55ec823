"""Which headers of HTTP requests and responses the spans of a process have, and which of them are secrets."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from agent.config import Http, Rule

SECRET_HEADERS = frozenset(
    (
        "api-key",
        "authorization",
        "cf-access-jwt-assertion",
        "cookie",
        "private-token",
        "proxy-authorization",
        "set-cookie",
        "x-access-token",
        "x-amz-security-token",
        "x-amzn-oidc-accesstoken",
        "x-amzn-oidc-data",
        "x-api-key",
        "x-auth-token",
        "x-authorization",
        "x-csrf-token",
        "x-forwarded-access-token",
        "x-goog-api-key",
        "x-goog-iap-jwt-assertion",
        "x-vault-token",
        "x-xsrf-token",
    )
)
"""Headers that are there to prove who somebody is: their values are never read, whatever the configuration says."""


@dataclass(frozen=True, slots=True)
class WantedHeaders:
    """Names in lower case: those of requests, of responses, and those of either whose values are not to be read."""

    request: tuple[str, ...] = ()
    response: tuple[str, ...] = ()
    secret: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.request or self.response)


def wanted_headers(http: Http, rule: Rule | None) -> WantedHeaders:
    """Give the headers that are wanted where a rule counts; a list in it replaces the general one."""
    request, response = http.request_headers, http.response_headers
    if rule and rule.request_headers is not None:
        request = rule.request_headers
    if rule and rule.response_headers is not None:
        response = rule.response_headers
    patterns = [pattern.lower() for pattern in http.redact_headers]
    secret = {
        name
        for name in (*request, *response)
        if name in SECRET_HEADERS or any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    return WantedHeaders(tuple(sorted(request)), tuple(sorted(response)), frozenset(secret))
