// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* github.com/gin-gonic/gin: the route of a request, for its net/http server span; and its Context as a context.Context.
 *
 * A Context has it from the moment it is found until the next request that gets the same Context from the pool. So it is
 * read when Engine.ServeHTTP gives the Context back, or when the span ends before, by a panic or Hijack. */
#include "go_context.h"
#include "http_server.h"

struct gin_layout {
	go_offset context_full_path GO("github.com/gin-gonic/gin.Context.fullPath"); /* since 1.5.0 */
};

LAYOUTS(gin_layouts, struct gin_layout);

/* func (engine *Engine) handleHTTPRequest(c *Context): again for the same Context by HandleContext. */
SEC("uprobe/github.com/gin-gonic/gin.(*Engine).handleHTTPRequest")
int gin_handle(struct pt_regs *ctx)
{
	struct http_server_request *request;
	const struct goroutine *goroutine;
	const struct gin_layout *go;
	struct hit hit;

	if (!hit_begin(&hit, ctx))
		return 0;
	/* Handlers pass it on as a context.Context. The server's span is the outermost of its goroutine. Its first words
	 * are those of the response, so a Context that serves another request by then is not taken for this one. */
	goroutine = hit.goroutine;
	if (!goroutine || !goroutine->depth)
		return 0;
	context_note(hit.key.process, hit.key.goid, GO_ARG_2(ctx), &goroutine->spans[0].context);
	request = http_server_request_of(&hit);
	if (!request)
		return 0;
	go = bpf_map_lookup_elem(&gin_layouts, &hit.process->slot);
	if (go && go->context_full_path != GO_UNKNOWN)
		route_expect(request, ROUTER_PLAIN, GO_ARG_2(ctx) + go->context_full_path, 0, 0);
	return 0;
}

/* engine.pool.Put(c) in Engine.ServeHTTP */
SEC("uprobe/github.com/gin-gonic/gin.(*Engine).ServeHTTP")
int gin_release(struct pt_regs *ctx)
{
	route_release(ctx);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
