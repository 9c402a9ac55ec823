/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Requests of a process none of whose are sampled: which traces they belong to is looked for only where a call sends that
 * on. Until then the ids are zero. */
#pragma once

#include "http_headers.h"
#include "tracestate.h"

static __always_inline bool is_context_unread(const struct trace_context *context)
{
	const any_u64 *id = (const any_u64 *)context->trace_id;

	return !(id[0] | id[1]);
}

/* Read the context that a request carries, or make one up; it is not sampled. */
static __always_inline void context_of_request_read(const struct hit *hit, __u64 header,
						    struct trace_context *context)
{
	struct header_scan *scan = header_scan_take();

	if (!scan) {
		context_make_up(context);
		return;
	}
	if (http_headers_context(hit, scan, header)) {
		if ((write_http1 || write_http2) && http_headers_state(hit, scan))
			tracestate_keep(scan->remote.trace_id, &scan->values[HEADER_TRACESTATE]);
		*context = scan->remote;
		context->flags = 0;
	} else {
		context_make_up(context);
	}
	header_scan_give(scan);
}

/* Find the ids for a call's context, in the header of the request that it is made for, which is open. */
static __always_inline void context_read_late(const struct hit *hit, struct goroutine *goroutine,
					      struct trace_context *context)
{
	const struct goroutine_key key = {hit->key.process, goroutine->found_goid};
	struct goroutine *owner = goroutine->unread_header ? goroutine : bpf_map_lookup_elem(&goroutines, &key);

	if (!owner || !owner->depth) {
		context_make_up(context);
		return;
	}
	if (is_context_unread(&owner->spans[0].context))
		context_of_request_read(hit, owner->unread_header, &owner->spans[0].context);
	*context = owner->spans[0].context;
}
