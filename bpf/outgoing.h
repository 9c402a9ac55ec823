/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Requests that clients are about to send, and the trace context that shall go out with each. A client notes one when it
 * starts; whoever writes the request, on another goroutine, finds it by the request's header map or by the goroutine that
 * called. Exactly that one, or none. */
#pragma once

#include "span.h"

struct outgoing_key {
	__u64 process; /* struct process.id */
	__u64 header; /* request.Header, a map: its address */
};

/* Entries stay when their request is over, until the map needs their room: deleting one could lose the request that has
 * begun with the same header map just then. */
struct outgoing {
	struct trace_context context; /* of the request that began when there was no other */
	__u64 requests; /* open ones that have this header map */
	__u64 generation; /* how often there was just one */
	__u64 shared; /* there were several at a time: none can be told until all of them are over */
	__u64 written; /* the address behind the bytes that were last written for it */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct outgoing_key);
	__type(value, struct outgoing);
} outgoing_headers SEC(".maps");

static __always_inline void outgoing_header_begin(const struct outgoing_key *key, const struct trace_context *context)
{
	struct outgoing *entry = bpf_map_lookup_elem(&outgoing_headers, key);

	if (!entry) {
		struct outgoing first = {.context = *context, .requests = 1, .generation = 1};

		if (!bpf_map_update_elem(&outgoing_headers, key, &first, BPF_NOEXIST))
			return;
		entry = bpf_map_lookup_elem(&outgoing_headers, key);
		if (!entry)
			return;
	}
	/* Others may do the same now. Whoever comes second sees so, and whoever was first looks again when it is done. */
	__sync_fetch_and_add(&entry->requests, 1);
	if (*(volatile __u64 *)&entry->requests != 1) {
		entry->shared = 1;
		return;
	}
	entry->shared = 0;
	entry->context = *context;
	entry->written = 0;
	__sync_fetch_and_add(&entry->generation, 1);
	if (*(volatile __u64 *)&entry->requests != 1)
		entry->shared = 1;
}

static __always_inline void outgoing_header_end(const struct outgoing_key *key)
{
	struct outgoing *entry = bpf_map_lookup_elem(&outgoing_headers, key);

	if (entry && entry->requests)
		__sync_fetch_and_add(&entry->requests, -1);
}

/* The request of this goroutine is over; `failed`: without a response. */
static __always_inline void outgoing_end(const struct hit *hit, struct goroutine *goroutine, bool failed)
{
	struct outgoing_call *call = &goroutine->outgoing;
	struct outgoing_key key = {hit->key.process, call->header};

	if (!is_context_sent() || !call->header)
		return;
	call->header = 0;
	call->given_up = failed ? bpf_ktime_get_ns() : 0;
	outgoing_header_end(&key);
}

/* A request begins whose headers are in the map `header`. */
static __always_inline void outgoing_begin(const struct hit *hit, struct goroutine *goroutine, __u64 header,
					   const struct trace_context *context)
{
	const struct outgoing_key key = {hit->key.process, header};

	if (!is_context_sent() || !header)
		return;
	/* One whose end was missed, since it panicked. */
	outgoing_end(hit, goroutine, true);
	goroutine->outgoing.context = *context;
	goroutine->outgoing.header = header;
	outgoing_header_begin(&key, context);
}

/* The context of the one open request that has this header map. */
static __always_inline bool outgoing_find(struct outgoing *entry, struct trace_context *context)
{
	__u64 generation = *(volatile __u64 *)&entry->generation;

	*context = entry->context;
	return !entry->shared && *(volatile __u64 *)&entry->requests == 1 &&
	       *(volatile __u64 *)&entry->generation == generation;
}
