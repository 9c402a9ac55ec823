"""net/http clients: one CLIENT span a request that is sent, redirects too."""

from __future__ import annotations

from agent.libraries.library import Feature, Library, Probe
from agent.libraries.maps import HASH_MAP, SWISS_MAP
from agent.spans.http_client import http_client_encoder
from agent.spans.resource import SCHEMA_URL

_ROUND_TRIP = (
    "net/http.(*Transport).roundTrip",
    "net/http.(*ClientConn).RoundTrip",
    "golang.org/x/net/http2.(*Transport).RoundTripOpt",
)

NET_HTTP_CLIENT = Library(
    name="net/http client",
    object="net_http_client",
    schema_url=SCHEMA_URL,
    records={"http_client_record": http_client_encoder},
    probes=(
        Probe(
            program="http_client_start",
            symbols=_ROUND_TRIP,
            gives="the beginning of requests",
            required=True,
        ),
        Probe(
            program="http_client_end",
            symbols=_ROUND_TRIP,
            at="return",
            gives="the response to requests",
            required=True,
        ),
    ),
    features=(
        Feature(
            what="the request",
            fields=(
                ("net/http.Request.URL", "net/url.URL.Scheme", "net/url.URL.Host", "runtime.g.stack.hi"),
            ),
            required=True,
        ),
        Feature(what="http.request.method", fields=(("net/http.Request.Method",),)),
        Feature(
            what="the parent from the request's context, where another goroutine sends it",
            fields=(("net/http.Request.ctx",),),
        ),
        Feature(
            what="url.full",
            fields=(
                (
                    "net/url.URL.User",
                    "net/url.URL.Path",
                    "net/url.URL.RawPath",
                    "net/url.URL.RawQuery",
                    "net/url.URL.Fragment",
                ),
            ),
        ),
        Feature(what="http.response.status_code", fields=(("net/http.Response.StatusCode",),)),
        Feature(
            what="network.protocol.version",
            fields=(("net/http.Response.ProtoMajor", "net/http.Response.ProtoMinor"),),
        ),
        Feature(
            what="error.type of connections that fail",
            fields=(("net.OpError.Err", "os.SyscallError.Err"),),
        ),
        Feature(
            what="headers of requests and responses",
            fields=(
                ("net/http.Request.Header", "net/http.Response.Header", *SWISS_MAP),
                ("net/http.Request.Header", "net/http.Response.Header", *HASH_MAP),
            ),
        ),
        Feature(
            what="http.request.resend_count",
            fields=(("net/http.Request.Response", "net/http.Response.Request"),),
        ),
    ),
)
