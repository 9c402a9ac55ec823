"""github.com/go-chi/chi, v4 and v5: http.route of net/http servers' spans."""

from __future__ import annotations

from agent.libraries.library import Feature, Library, Probe

_V4, _V5 = "github.com/go-chi/chi", "github.com/go-chi/chi/v5"


def _find(program: str, module: str) -> Probe:
    return Probe(
        program=program,
        symbols=(f"{module}.(*Mux).routeHTTP",),
        at="call",
        calls=(f"{module}.(*node).FindRoute",),
        gives="http.route",
    )


CHI = Library(
    name="chi",
    object="chi",
    module=_V5,
    former_modules=(_V4,),
    records={},
    probes=(
        _find("chi_v5_find", _V5),
        _find("chi_v4_find", _V4),
        Probe(
            program="chi_release",
            symbols=(f"{_V5}.(*Mux).ServeHTTP", f"{_V4}.(*Mux).ServeHTTP"),
            at="call",
            calls=("sync.(*Pool).Put",),
            gives="http.route",
            required=True,
        ),
    ),
    features=tuple(
        Feature(
            what="http.route",
            fields=((f"{module}.Context.RoutePatterns", f"{module}.Context.routePattern"),),
            required=True,
            of=program,
        )
        for program, module in (("chi_v5_find", _V5), ("chi_v4_find", _V4))
    ),
)
