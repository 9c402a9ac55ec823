"""net/http servers, HTTP/1 and HTTP/2, and golang.org/x/net/http2: one SERVER span a request."""

from __future__ import annotations

from agent.libraries.connection import TCP_CONNECTION
from agent.libraries.library import Feature, Library, Probe
from agent.libraries.maps import HASH_MAP, SWISS_MAP
from agent.spans.http_server import http_server_encoder
from agent.spans.resource import SCHEMA_URL

NET_HTTP_SERVER = Library(
    name="net/http server",
    object="net_http_server",
    schema_url=SCHEMA_URL,
    records={"http_server_record": http_server_encoder},
    probes=(
        Probe(
            program="http_server_start",
            symbols=("net/http.serverHandler.ServeHTTP",),
            gives="the beginning of requests",
            required=True,
        ),
        Probe(
            program="http_server_end",
            symbols=("net/http.(*response).finishRequest",),
            gives="the end of HTTP/1 requests",
            required=True,
        ),
        Probe(
            program="http_server_abort",
            symbols=("net/http.(*conn).close",),
            gives="requests whose handler panicked",
            absent="the linker found no use for it",
        ),
        Probe(
            program="http_server_hijack",
            symbols=("net/http.(*response).Hijack",),
            gives="requests that take their connection over, such as WebSockets",
        ),
        Probe(
            program="http_server_route",
            symbols=("net/http.(*ServeMux).ServeHTTP",),
            at="after",
            calls=("net/http.(*ServeMux).findHandler",),
            gives="http.route behind handlers that replace the request",
        ),
        Probe(
            program="http2_server_start",
            symbols=(
                "net/http.(*http2serverConn).runHandler",
                "net/http/internal/http2.(*serverConn).runHandler",
            ),
            gives="the beginning of HTTP/2 requests",
            absent="the program was built without the standard library's HTTP/2",
        ),
        Probe(
            program="http2_server_end",
            symbols=(
                "net/http.(*http2serverConn).runHandler.func1",
                "net/http/internal/http2.(*serverConn).runHandler.func1",
            ),
            gives="the end of HTTP/2 requests",
            absent="the program was built without the standard library's HTTP/2",
        ),
        Probe(
            program="x_http2_server_start",
            symbols=("golang.org/x/net/http2.(*serverConn).runHandler",),
            gives="the beginning of requests served by golang.org/x/net/http2",
        ),
        Probe(
            program="x_http2_server_end",
            symbols=("golang.org/x/net/http2.(*serverConn).runHandler.func1",),
            gives="the end of requests served by golang.org/x/net/http2",
        ),
    ),
    features=(
        Feature(what="the request", fields=(("net/http.Request.RequestURI",),), required=True),
        Feature(what="http.request.method", fields=(("net/http.Request.Method",),)),
        Feature(
            what="http.response.status_code", fields=(("net/http.response.status",),), of="http_server_end"
        ),
        Feature(
            what="http.response.status_code of HTTP/2",
            fields=(
                ("net/http.http2responseWriter.rws", "net/http.http2responseWriterState.status"),
                (
                    "net/http/internal/http2.responseWriter.rws",
                    "net/http/internal/http2.responseWriterState.status",
                ),
            ),
            of="http2_server_end",
        ),
        Feature(
            what="http.response.status_code of golang.org/x/net/http2",
            fields=(
                (
                    "golang.org/x/net/http2.responseWriter.rws",
                    "golang.org/x/net/http2.responseWriterState.status",
                ),
            ),
            of="x_http2_server_end",
        ),
        Feature(
            what="http.route",
            fields=(("net/http.Request.pat", "net/http.pattern.str"),),
            since="http.ServeMux has patterns since Go 1.22",
        ),
        Feature(
            what="the parent from traceparent, user_agent.original, and what proxies forward",
            fields=(
                ("net/http.Request.Header", *SWISS_MAP),
                ("net/http.Request.Header", *HASH_MAP),
            ),
        ),
        Feature(
            what="headers of HTTP/1 responses",
            fields=(("net/http.response.handlerHeader", "net/http.response.cw.header"),),
            of="http_server_end",
        ),
        Feature(
            what="headers of HTTP/2 responses",
            fields=(
                (
                    "net/http.http2responseWriterState.handlerHeader",
                    "net/http.http2responseWriterState.snapHeader",
                ),
                (
                    "net/http/internal/http2.responseWriterState.handlerHeader",
                    "net/http/internal/http2.responseWriterState.snapHeader",
                ),
            ),
            of="http2_server_end",
        ),
        Feature(
            what="headers of responses by golang.org/x/net/http2",
            fields=(
                (
                    "golang.org/x/net/http2.responseWriterState.handlerHeader",
                    "golang.org/x/net/http2.responseWriterState.snapHeader",
                ),
            ),
            of="x_http2_server_end",
        ),
        Feature(what="server.address, server.port", fields=(("net/http.Request.Host",),)),
        Feature(
            what="client.address, network.peer.address, network.peer.port",
            fields=(("net/http.Request.RemoteAddr",),),
        ),
        Feature(
            what="network.protocol.version",
            fields=(("net/http.Request.ProtoMajor", "net/http.Request.ProtoMinor"),),
        ),
        Feature(what="url.scheme", fields=(("net/http.Request.TLS",),)),
        Feature(
            what="which HTTP/2 requests panicked", fields=(("runtime.g._panic",),), of="http2_server_end"
        ),
        Feature(
            what="the parent from the connection, where a client on this machine could not send one",
            fields=(("net/http.response.conn", "net/http.conn.rwc", *TCP_CONNECTION),),
        ),
    ),
)
