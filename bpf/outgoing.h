/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Requests that clients are about to send, and the trace context that shall go out with each. A client notes one when it
 * starts; whoever writes the request, on another goroutine, finds it by the request's header map or by the goroutine that
 * called. Exactly that one, or none. */
#pragma once

#include "span.h"

#define OUTGOING_WAYS	 16
#define OUTGOING_MISSED	 240 /* in coarse_time, half a minute or more: by then a request's header has been written */
#define OUTGOING_NOWHERE ((__u32) - 1)

/* What is known of a request's header map. It stays when the request is over, until its place is needed. */
struct outgoing {
	__u64 seal; /* over process, header map and context: two processors may be at it at a time */
	__u64 ids[3]; /* of the request that began when there was no other: its trace_context */
	__u64 written; /* the address behind the bytes that were last written for it */
	__u8 flags; /* of the context */
	__u8 shared; /* there were several at a time: none can be told until all of them are over */
	__u16 takers; /* how often the place was taken from requests whose end was missed */
	__u32 since; /* when the last one began, coarse_time() */
};

/* Header maps are mostly new ones: a hash map would have to make an entry for each, at a multiple of the cost. A header
 * map has its place in the set that its address tells. What is looked at first stands together. */
struct outgoing_set {
	/* Of process and header map; the seal has the rest of them. 0: nobody has had it. */
	__u32 tags[OUTGOING_WAYS];
	__u32 requests[OUTGOING_WAYS]; /* open ones that have this place */
	__u64 turns; /* requests that have begun here, and in the low half those that are just about to */
	struct outgoing entries[OUTGOING_WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct outgoing_set);
} outgoing_headers SEC(".maps");

const volatile __u32 outgoing_sets = 4096; /* how many there are */

/* The header maps of a process are made side by side, 48 bytes each: the next one mostly has the set that is in the
 * processor's cache by now. */
static __always_inline __u32 outgoing_index(__u64 process, __u64 header)
{
	return (__u32)((header >> 8) + process) % outgoing_sets;
}

static __always_inline __u64 outgoing_key(__u64 process, __u64 header)
{
	return (process ^ header) * 0x9e3779b97f4a7c15ULL ^ process;
}

static __always_inline __u32 outgoing_tag(__u64 key)
{
	return key >> 32 | 1;
}

static __always_inline __u64 outgoing_seal(__u64 key, const struct trace_context *context)
{
	const any_u64 *ids = (const any_u64 *)context;
	__u64 seal = key;

	seal = seal * 0x9e3779b97f4a7c15ULL ^ ids[0];
	seal = seal * 0x9e3779b97f4a7c15ULL ^ ids[1];
	seal = seal * 0x9e3779b97f4a7c15ULL ^ ids[2];
	return seal * 0x9e3779b97f4a7c15ULL ^ context->flags;
}

/* The open requests that have a header map: how many, and what is known of them. */
struct outgoing_requests {
	__u64 key;
	const __u32 *requests;
	struct outgoing *entry;
};

/* False where there is none, and has been none lately. */
static __always_inline bool outgoing_header(struct outgoing_requests *found, __u64 process, __u64 header)
{
	__u32 index = outgoing_index(process, header);
	struct outgoing_set *set = bpf_map_lookup_elem(&outgoing_headers, &index);

	found->key = outgoing_key(process, header);
	if (!set)
		return false;
#pragma unroll
	for (int i = 0; i < OUTGOING_WAYS; i++)
		if (set->tags[i] == outgoing_tag(found->key)) {
			found->requests = &set->requests[i];
			found->entry = &set->entries[i];
			return true;
		}
	return false;
}

#define OUTGOING_TURN ((1ULL << 32) + 1)

/* Begin to look for a place. One at a time, lest two requests with the same header map have two places: whoever is not
 * alone goes without, and whoever was there before learns it from outgoing_turn_over. Both numbers are in one word, on
 * whose changes all processors agree. */
static __always_inline __u64 outgoing_turn(struct outgoing_set *set)
{
	__sync_fetch_and_add(&set->turns, OUTGOING_TURN);
	return *(volatile __u64 *)&set->turns;
}

/* Whether nobody else came meanwhile. */
static __always_inline bool outgoing_turn_over(struct outgoing_set *set, __u64 turn)
{
	__sync_fetch_and_add(&set->turns, -1ULL);
	return *(volatile __u64 *)&set->turns >> 32 == turn >> 32;
}

/* The way of a set that has this tag, or that can have it; OUTGOING_WAYS where all are in use. */
static __always_inline __u64 outgoing_way(const struct outgoing_set *set, __u32 tag)
{
#pragma unroll
	for (int i = 0; i < OUTGOING_WAYS; i++)
		if (set->tags[i] == tag)
			return i;
#pragma unroll
	for (int i = 0; i < OUTGOING_WAYS; i++)
		if (!set->requests[i])
			return i;
	return OUTGOING_WAYS;
}

/* Take a place for a request in a set. Its number in the set; OUTGOING_WAYS where there is none. */
static __always_inline __u64 outgoing_take(struct outgoing_set *set, __u64 key, const struct trace_context *context)
{
	const any_u64 *ids = (const any_u64 *)context;
	__u32 now = coarse_time();
	__u64 way = outgoing_way(set, outgoing_tag(key));
	struct outgoing *entry;

	if (way >= OUTGOING_WAYS) {
		way = key;
		MASK(way, OUTGOING_WAYS - 1);
		if (now - set->entries[way].since < OUTGOING_MISSED)
			return OUTGOING_WAYS;
		set->entries[way].takers++;
		set->requests[way] = 0;
	}
	MASK(way, OUTGOING_WAYS - 1);
	entry = &set->entries[way];
	__sync_fetch_and_add(&set->requests[way], 1);
	if (*(volatile __u32 *)&set->requests[way] != 1) {
		entry->shared = true;
		return way;
	}
	entry->shared = false;
	entry->written = 0;
	entry->since = now;
	set->tags[way] = outgoing_tag(key);
	entry->ids[0] = ids[0];
	entry->ids[1] = ids[1];
	entry->ids[2] = ids[2];
	entry->flags = context->flags;
	entry->seal = outgoing_seal(key, context);
	return way;
}

static __always_inline void outgoing_header_begin(struct outgoing_call *call, __u64 process, __u64 header,
						  const struct trace_context *context)
{
	__u32 index = outgoing_index(process, header);
	struct outgoing_set *set = bpf_map_lookup_elem(&outgoing_headers, &index);
	__u64 way = OUTGOING_WAYS, turn;
	bool alone;

	call->place = OUTGOING_NOWHERE;
	if (!set)
		return;
	turn = outgoing_turn(set);
	if ((__u32)turn == 1)
		way = outgoing_take(set, outgoing_key(process, header), context);
	alone = outgoing_turn_over(set, turn);
	if (way >= OUTGOING_WAYS)
		return;
	MASK(way, OUTGOING_WAYS - 1);
	if (!alone)
		set->entries[way].shared = true;
	call->place = index * OUTGOING_WAYS + way;
	call->takers = set->entries[way].takers;
}

static __always_inline void outgoing_header_end(const struct outgoing_call *call)
{
	__u32 index = call->place / OUTGOING_WAYS;
	struct outgoing_set *set = bpf_map_lookup_elem(&outgoing_headers, &index);
	__u64 way = call->place;

	if (!set)
		return;
	MASK(way, OUTGOING_WAYS - 1);
	if (set->requests[way] && set->entries[way].takers == call->takers)
		__sync_fetch_and_add(&set->requests[way], -1);
}

/* The request of this goroutine is over; `failed`: without a response. */
static __always_inline void outgoing_end(struct goroutine *goroutine, bool failed)
{
	struct outgoing_call *call = &goroutine->outgoing;

	if (!is_context_sent() || !call->header)
		return;
	call->header = 0;
	call->given_up = failed ? bpf_ktime_get_ns() : 0;
	outgoing_header_end(call);
}

/* A request begins whose headers are in the map `header`. */
static __always_inline void outgoing_begin(const struct hit *hit, struct goroutine *goroutine, __u64 header,
					   const struct trace_context *context)
{
	if (!is_context_sent() || !header)
		return;
	/* One whose end was missed, since it panicked. */
	outgoing_end(goroutine, true);
	goroutine->outgoing.context = *context;
	goroutine->outgoing.header = header;
	outgoing_header_begin(&goroutine->outgoing, hit->key.process, header, context);
}

/* The context of the one open request that has this header map. */
static __always_inline bool outgoing_find(const struct outgoing_requests *found, struct trace_context *context)
{
	any_u64 *ids = (any_u64 *)context;

	_Static_assert(sizeof(*context) == 4 * sizeof(*ids), "all of its words are written");
	ids[0] = found->entry->ids[0];
	ids[1] = found->entry->ids[1];
	ids[2] = found->entry->ids[2];
	ids[3] = found->entry->flags; /* the padding too: Linux 5.10 lets nothing copy what was never written */
	return !found->entry->shared && *(const volatile __u32 *)found->requests == 1 &&
	       found->entry->seal == outgoing_seal(found->key, context);
}
