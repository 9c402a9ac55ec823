"""github.com/labstack/echo, v3 to v5: http.route of net/http servers' spans."""

from __future__ import annotations

from agent.libraries.library import Feature, Library, Probe

_V3, _V4, _V5 = "github.com/labstack/echo", "github.com/labstack/echo/v4", "github.com/labstack/echo/v5"
_PROGRAMS = {_V3: "echo_v3_find", _V4: "echo_v4_find", _V5: "echo_v5_find"}
_CONTEXTS = {_V3: "context", _V4: "context", _V5: "Context"}


def _find(module: str) -> Probe:
    """With middleware that runs before the router, the call is in a closure."""
    return Probe(
        program=_PROGRAMS[module],
        symbols=(f"{module}.(*Echo).ServeHTTP", f"{module}.(*Echo).ServeHTTP.func1"),
        at="call",
        calls=(f"{module}.(*Router).Find",),
        gives="http.route",
    )


ECHO = Library(
    name="echo",
    object="echo",
    module=_V5,
    former_modules=(_V4, _V3),
    records={},
    probes=(
        _find(_V3),
        _find(_V4),
        Probe(
            program=_PROGRAMS[_V5],
            symbols=(f"{_V5}.(*DefaultRouter).Route",),
            gives="http.route",
        ),
        Probe(
            program="echo_release",
            symbols=(
                f"{_V3}.(*Echo).ServeHTTP",
                f"{_V4}.(*Echo).ServeHTTP",
                f"{_V5}.(*Echo).ServeHTTP",
                f"{_V5}.(*Echo).serveHTTP",
                f"{_V5}.(*Echo).ServeHTTP.deferwrap1",
                f"{_V5}.(*Echo).serveHTTP.deferwrap1",
            ),
            at="call",
            calls=("sync.(*Pool).Put",),
            gives="http.route",
            required=True,
        ),
    ),
    features=tuple(
        Feature(
            what="http.route",
            fields=((f"{module}.{context}.path",),),
            required=True,
            of=_PROGRAMS[module],
        )
        for module, context in _CONTEXTS.items()
    ),
)
