"""Trace context in outgoing HTTP/1 requests: it makes no spans, it ties those of several services together."""

from __future__ import annotations

from agent.libraries.connection import TCP_CONNECTION
from agent.libraries.library import Feature, Library, Probe
from agent.libraries.maps import HASH_MAP, SWISS_MAP

_WRITER = (
    "net/http.transferWriter.Header",
    "net/http.(*transferWriter).writeHeader",
    "net/http.persistConnWriter as io.Writer",
    "*bufio.Writer as io.Writer",
    "bufio.Writer.err",
    "bufio.Writer.buf",
    "bufio.Writer.n",
    "bufio.Writer.wr",
)

HTTP1_PROPAGATION = Library(
    name="HTTP/1 propagation",
    object="http1_propagation",
    records={},
    # The function that is probed writes responses as well.
    only_with=("net/http.(*Transport).roundTrip", "net/http.(*ClientConn).RoundTrip"),
    probes=(
        Probe(
            program="http1_request_written",
            symbols=("net/http.(*transferWriter).writeHeader",),
            gives="the moment at which a request is written",
            required=True,
        ),
    ),
    features=(
        Feature(
            what="whose request is written, and to which connection",
            fields=((*_WRITER, *SWISS_MAP), (*_WRITER, *HASH_MAP)),
            required=True,
        ),
        Feature(
            what="requests that are joined by their connection",
            fields=(("net/http.persistConn.conn", *TCP_CONNECTION),),
        ),
    ),
)
