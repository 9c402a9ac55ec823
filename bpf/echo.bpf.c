// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* github.com/labstack/echo, v3 to v5: the route of a request, for its net/http server span.
 *
 * The router puts it into the request's context, which comes from a pool: it is read when ServeHTTP gives that back,
 * or when the span ends before. */
#include "http_server.h"

struct echo_layout {
	go_offset v3_path GO("github.com/labstack/echo.context.path");
	go_offset v4_path GO("github.com/labstack/echo/v4.context.path");
	go_offset v5_path GO("github.com/labstack/echo/v5.Context.path");
};

LAYOUTS(echo_layouts, struct echo_layout);

static __always_inline void find(struct pt_regs *ctx, int version, __u64 context, __u64 given)
{
	struct http_server_request *request;
	const struct echo_layout *go;
	go_offset path;
	struct hit hit;

	if (!hit_identify_sampled(&hit, ctx) || !(request = http_server_request_of(&hit)))
		return;
	go = bpf_map_lookup_elem(&echo_layouts, &hit.process->slot);
	if (!go)
		return;
	path = version == 3 ? go->v3_path : version == 4 ? go->v4_path : go->v5_path;
	if (path != GO_UNKNOWN)
		route_expect(request, ROUTER_PLAIN, context + path, 0, given);
}

/* func (r *Router) Find(method, path string, c Context), called by ServeHTTP; c is a *context, whose path is the one given until
 * it finds a route. */
SEC("uprobe/github.com/labstack/echo.(*Echo).ServeHTTP")
int echo_v3_find(struct pt_regs *ctx)
{
	find(ctx, 3, GO_ARG_7(ctx), GO_ARG_4(ctx));
	return 0;
}

SEC("uprobe/github.com/labstack/echo/v4.(*Echo).ServeHTTP")
int echo_v4_find(struct pt_regs *ctx)
{
	find(ctx, 4, GO_ARG_7(ctx), GO_ARG_4(ctx));
	return 0;
}

/* func (r *DefaultRouter) Route(c *Context) HandlerFunc */
SEC("uprobe/github.com/labstack/echo/v5.(*DefaultRouter).Route")
int echo_v5_find(struct pt_regs *ctx)
{
	find(ctx, 5, GO_ARG_2(ctx), 0);
	return 0;
}

/* e.pool.Put(c) in ServeHTTP; in v5 deferred, so after a panic too */
SEC("uprobe/github.com/labstack/echo/v4.(*Echo).ServeHTTP")
int echo_release(struct pt_regs *ctx)
{
	route_release(ctx);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
