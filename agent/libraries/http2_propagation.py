"""Trace context in outgoing HTTP/2 requests, of net/http and golang.org/x/net/http2.

It makes no spans, it ties those of several services together.
"""

from __future__ import annotations

from agent.libraries.connection import TCP_CONNECTION
from agent.libraries.library import CALLS, Feature, Library, Probe
from agent.libraries.maps import HASH_MAP, SWISS_MAP

_BUFFERED = (
    "bufio.Writer.err",
    "bufio.Writer.buf",
    "bufio.Writer.n",
    "bufio.Writer.wr",
)
_FLUSH = "bufio.(*Writer).Flush"
_WRITE_HEADERS = (
    "net/http.(*http2ClientConn).writeHeaders",
    "net/http/internal/http2.(*ClientConn).writeHeaders",
)
_X_WRITE_HEADERS = "golang.org/x/net/http2.(*ClientConn).writeHeaders"


def _connection(package: str, prefix: str = "") -> tuple[str, ...]:
    """What tells a client's connection; `prefix` is that of the package's types."""
    types = f"{package}.{prefix}"
    return (
        f"{types}stickyErrWriter.conn",
        f"{types}stickyErrWriter.err",
        f"{types}stickyErrWriter as io.Writer",
        f"{types}ClientConn.werr",
        f"{types}ClientConn.nextStreamID",
        f"{types}ClientConn.peerMaxHeaderListSize",
        *_BUFFERED,
    )


_OLD = (f"{_WRITE_HEADERS[0]}{CALLS}{_FLUSH}", *_connection("net/http", "http2"))
_NEW = (f"{_WRITE_HEADERS[1]}{CALLS}{_FLUSH}", *_connection("net/http/internal/http2"))
_X_NET = (f"{_X_WRITE_HEADERS}{CALLS}{_FLUSH}", *_connection("golang.org/x/net/http2"))

HTTP2_PROPAGATION = Library(
    name="HTTP/2 propagation",
    object="http2_propagation",
    records={},
    only_with=(
        "net/http.(*http2clientStream).writeRequest",
        "net/http/internal/http2.(*clientStream).writeRequest",
        "golang.org/x/net/http2.(*clientStream).writeRequest",
    ),
    probes=(
        Probe(
            program="http2_request_written",
            symbols=_WRITE_HEADERS,
            at="call",
            calls=(_FLUSH,),
            gives="the moment at which a request is written",
            absent="the program was built without the standard library's HTTP/2",
        ),
        Probe(
            program="x_http2_request_written",
            symbols=(_X_WRITE_HEADERS,),
            at="call",
            calls=(_FLUSH,),
            gives="the moment at which golang.org/x/net/http2 writes a request",
        ),
    ),
    features=(
        Feature(
            what="whose request is written",
            fields=(("runtime.g.parentGoid", *SWISS_MAP), ("runtime.g.parentGoid", *HASH_MAP)),
            since="goroutines know their parent since Go 1.21",
            required=True,
        ),
        Feature(
            what="to which connection a request is written",
            fields=(_OLD, _NEW),
            of="http2_request_written",
        ),
        Feature(
            what="to which connection golang.org/x/net/http2 writes a request",
            fields=(_X_NET,),
            of="x_http2_request_written",
        ),
        Feature(what="requests that are joined by their connection", fields=(TCP_CONNECTION,)),
    ),
)
