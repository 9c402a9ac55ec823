// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* github.com/gorilla/mux: the route of a request, for its net/http server span.
 *
 * A route that matches calls setMatch: first the one whose handler will run, then those of the routers that it is below.
 * The RouteMatch names the first. */
#include "http_server.h"

struct gorilla_mux_layout {
	go_offset match_route GO("github.com/gorilla/mux.RouteMatch.Route");
	go_offset match_error GO("github.com/gorilla/mux.RouteMatch.MatchErr"); /* since 1.6.0 */
	/* In the group of regular expressions that a Route points to, and since 1.7.0 contains. */
	go_offset route_regexp GO("github.com/gorilla/mux.Route.regexp");
	go_offset regexp_path GO("github.com/gorilla/mux.routeRegexpGroup.path");
	go_offset template GO("github.com/gorilla/mux.routeRegexp.template");
	go_offset strict_slash GO("github.com/gorilla/mux.routeRegexp.options.strictSlash")
	    GO("github.com/gorilla/mux.routeRegexp.strictSlash");
	go_offset request_url GO("net/http.Request.URL");
	go_offset url_path GO("net/url.URL.Path");
};

LAYOUTS(gorilla_mux_layouts, struct gorilla_mux_layout);

static __always_inline bool ends_in_slash(const struct go_string *text)
{
	char last = 0;

	return text->length && go_read(&last, 1, text->data + text->length - 1) && last == '/';
}

/* With StrictSlash, a path that ends in a slash where the route does not, or the other way round, is redirected. */
static __always_inline bool is_redirected(const struct gorilla_mux_layout *go, __u64 regexp,
					  const struct go_string *template, __u64 request)
{
	struct go_string path = {};
	bool strict = false;
	__u64 url = 0;

	if (!go_read_field(&strict, sizeof(strict), regexp, go->strict_slash) || !strict)
		return false;
	return go_read_field(&url, sizeof(url), request, go->request_url) &&
	       go_read_field(&path, sizeof(path), url, go->url_path) &&
	       ends_in_slash(&path) != ends_in_slash(template);
}

static __always_inline void match(struct pt_regs *ctx, __u64 http_request, __u64 found, bool contained)
{
	struct http_server_request *request;
	const struct gorilla_mux_layout *go;
	__u64 route = 0, group = 0, regexp = 0, error = 0;
	struct go_string template = {};
	struct hit hit;

	if (!hit_identify_sampled(&hit, ctx) || !(request = http_server_request_of(&hit)))
		return;
	go = bpf_map_lookup_elem(&gorilla_mux_layouts, &hit.process->slot);
	if (!go || go->route_regexp == GO_UNKNOWN)
		return;
	route_begin(request, ROUTER_PLAIN);
	/* A handler for what is not found, or not allowed, is a match too. */
	if (go->match_error != GO_UNKNOWN && (!go_read_field(&error, sizeof(error), found, go->match_error) || error))
		return;
	if (!go_read_field(&route, sizeof(route), found, go->match_route) || !route)
		return;
	group = route + go->route_regexp;
	if (!contained && !go_read(&group, sizeof(group), group))
		return;
	if (go_read_field(&regexp, sizeof(regexp), group, go->regexp_path) &&
	    go_read_field(&template, sizeof(template), regexp, go->template) &&
	    !is_redirected(go, regexp, &template, http_request))
		route_set(request, ROUTER_PLAIN, &template);
}

/* func (v *routeRegexpGroup) setMatch(req *http.Request, m *RouteMatch, r *Route), up to 1.6 */
SEC("uprobe/github.com/gorilla/mux.(*routeRegexpGroup).setMatch")
int gorilla_mux_match_by_pointer(struct pt_regs *ctx)
{
	match(ctx, GO_ARG_2(ctx), GO_ARG_3(ctx), false);
	return 0;
}

/* func (v routeRegexpGroup) setMatch(req *http.Request, m *RouteMatch, r *Route), since 1.7; v has five words */
SEC("uprobe/github.com/gorilla/mux.routeRegexpGroup.setMatch")
int gorilla_mux_match(struct pt_regs *ctx)
{
	match(ctx, GO_ARG_6(ctx), GO_ARG_7(ctx), true);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
