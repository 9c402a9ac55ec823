// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* github.com/go-chi/chi, v4 and v5: the route of a request, for its net/http server span.
 *
 * A request has one Context, of the outermost router, and each router on its way adds the pattern that it has found.
 * The list is read when that router gives the Context back to its pool, or when the span ends before. It counts only
 * if the last router found something: then routePattern is what it added. */
#include "http_server.h"

struct chi_layout {
	go_offset v5_route_patterns GO("github.com/go-chi/chi/v5.Context.RoutePatterns");
	go_offset v5_route_pattern GO("github.com/go-chi/chi/v5.Context.routePattern");
	go_offset v4_route_patterns GO("github.com/go-chi/chi.Context.RoutePatterns");
	go_offset v4_route_pattern GO("github.com/go-chi/chi.Context.routePattern");
};

LAYOUTS(chi_layouts, struct chi_layout);

/* func (n *node) FindRoute(rctx *Context, method methodTyp, path string) (*node, endpoints, http.Handler), called by
 * routeHTTP: once for each router on the way. */
static __always_inline void find(struct pt_regs *ctx, bool v5)
{
	struct http_server_request *request;
	const struct chi_layout *go;
	go_offset list, last;
	struct hit hit;

	if (!hit_identify_sampled(&hit, ctx) || !(request = http_server_request_of(&hit)))
		return;
	go = bpf_map_lookup_elem(&chi_layouts, &hit.process->slot);
	if (!go)
		return;
	list = v5 ? go->v5_route_patterns : go->v4_route_patterns;
	last = v5 ? go->v5_route_pattern : go->v4_route_pattern;
	if (list != GO_UNKNOWN && last != GO_UNKNOWN)
		route_expect(request, ROUTER_CHI, GO_ARG_2(ctx) + last, GO_ARG_2(ctx) + list, 0);
}

SEC("uprobe/github.com/go-chi/chi/v5.(*Mux).routeHTTP")
int chi_v5_find(struct pt_regs *ctx)
{
	find(ctx, true);
	return 0;
}

SEC("uprobe/github.com/go-chi/chi.(*Mux).routeHTTP")
int chi_v4_find(struct pt_regs *ctx)
{
	find(ctx, false);
	return 0;
}

/* mx.pool.Put(rctx) in Mux.ServeHTTP of the outermost router */
SEC("uprobe/github.com/go-chi/chi/v5.(*Mux).ServeHTTP")
int chi_release(struct pt_regs *ctx)
{
	route_release(ctx);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
