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

/* Find the ids for a call's context, in the header of the request that it is made for, which is open. */
static __always_inline void context_read_late(const struct hit *hit, struct goroutine *goroutine,
					      struct trace_context *context)
{
	const struct goroutine_key key = {hit->key.process, goroutine->found_goid};
	struct goroutine *owner = goroutine->unread_header ? goroutine : bpf_map_lookup_elem(&goroutines, &key);
	struct header_scan *scan = header_scan_of(&hit->key);
	struct trace_context *known;

	if (!owner || !owner->depth || !scan) {
		random_id(context->trace_id, sizeof(context->trace_id));
		random_id(context->span_id, sizeof(context->span_id));
		return;
	}
	known = &owner->spans[0].context;
	if (is_context_unread(known)) {
		if (http_headers_context(hit, scan, owner->unread_header)) {
			if ((write_http1 || write_http2) && http_headers_state(hit, scan))
				tracestate_keep(scan->remote.trace_id, &scan->values[HEADER_TRACESTATE]);
		} else {
			random_id(scan->remote.trace_id, sizeof(scan->remote.trace_id));
			random_id(scan->remote.span_id, sizeof(scan->remote.span_id));
		}
		scan->remote.flags = 0;
		*known = scan->remote;
	}
	*context = *known;
}
