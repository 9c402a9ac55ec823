// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* github.com/gin-gonic/gin: the route of a request, for its net/http server span.
 *
 * A Context has it from the moment it is found until the next request that gets the same Context from the pool. So it is
 * read when Engine.ServeHTTP gives the Context back, or when the span ends before, by a panic or Hijack. */
#include "http_server.h"

struct gin_layout {
	go_offset context_full_path GO("github.com/gin-gonic/gin.Context.fullPath"); /* since 1.5.0 */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32); /* struct process.slot */
	__type(value, struct gin_layout);
} gin_layouts SEC(".maps");

/* func (engine *Engine) handleHTTPRequest(c *Context): again for the same Context by HandleContext. */
SEC("uprobe/github.com/gin-gonic/gin.(*Engine).handleHTTPRequest")
int gin_handle(struct pt_regs *ctx)
{
	struct http_server_request *request;
	const struct gin_layout *go;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(request = http_server_request_of(&hit)))
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
