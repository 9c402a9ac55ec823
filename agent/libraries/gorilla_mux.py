"""github.com/gorilla/mux: http.route of net/http servers' spans."""

from __future__ import annotations

from agent.libraries.library import Feature, Library, Probe

_MUX = "github.com/gorilla/mux"

GORILLA_MUX = Library(
    name="gorilla/mux",
    object="gorilla_mux",
    module=_MUX,
    records={},
    probes=(
        Probe(
            program="gorilla_mux_match",
            symbols=(f"{_MUX}.routeRegexpGroup.setMatch",),
            gives="http.route",
        ),
        Probe(
            program="gorilla_mux_match_by_pointer",
            symbols=(f"{_MUX}.(*routeRegexpGroup).setMatch",),
            gives="http.route",
        ),
    ),
    features=(
        Feature(
            what="http.route",
            fields=(
                (
                    f"{_MUX}.RouteMatch.Route",
                    f"{_MUX}.Route.regexp",
                    f"{_MUX}.routeRegexpGroup.path",
                    f"{_MUX}.routeRegexp.template",
                ),
            ),
            required=True,
        ),
    ),
)
