"""github.com/gin-gonic/gin: http.route of net/http servers' spans."""

from __future__ import annotations

from agent.libraries.library import Feature, Library, Probe

_GIN = "github.com/gin-gonic/gin"

GIN = Library(
    name="gin",
    object="gin",
    module=_GIN,
    records={},
    probes=(
        Probe(
            program="gin_handle",
            symbols=(f"{_GIN}.(*Engine).handleHTTPRequest",),
            gives="http.route",
            required=True,
        ),
        Probe(
            program="gin_release",
            symbols=(f"{_GIN}.(*Engine).ServeHTTP",),
            at="call",
            calls=("sync.(*Pool).Put",),
            gives="http.route",
            required=True,
        ),
    ),
    features=(
        Feature(
            what="http.route",
            fields=((f"{_GIN}.Context.fullPath",),),
            required=True,
            since="gin has it since 1.5.0",
        ),
    ),
)
