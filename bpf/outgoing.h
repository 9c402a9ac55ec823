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
 * map has its place in the set that its address tells, its home; or, where that is full, in another one. What is looked at
 * first stands together. */
struct outgoing_set {
	/* Of process and header map; the seal has the rest of them. 0: nobody has had it. */
	__u32 tags[OUTGOING_WAYS];
	__u32 requests[OUTGOING_WAYS]; /* open ones that have this place */
	__u64 turn; /* requests that are just about to begin here; in the high half those that could not wait */
	__u64 elsewhere; /* open requests of which this is the home, and which have their places in other sets */
	struct outgoing entries[OUTGOING_WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct outgoing_set);
} outgoing_headers SEC(".maps");

const volatile __u32 outgoing_sets = 4096; /* how many there are */

/* A page of the Go heap has one home, as what requests make one after the other lies side by side: the next header map
 * mostly has the set that is in the processor's cache by now. */
static __always_inline __u32 outgoing_home(__u64 process, __u64 header)
{
	return (__u32)((header >> 12) + process) % outgoing_sets;
}

#define OUTGOING_OTHERS 4 /* sets in which a header map may have its place if its home is full */

static __always_inline __u32 outgoing_other(__u64 process, __u64 header, __u32 which)
{
	return (__u32)(((header >> 4) + which * 0x10001) * 0x9e3779b1 + process) % outgoing_sets;
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

static __always_inline struct outgoing_set *outgoing_set_at(__u32 index)
{
	return bpf_map_lookup_elem(&outgoing_headers, &index);
}

/* The way of a set that has this tag; OUTGOING_WAYS where none has. */
static __always_inline __u32 outgoing_tagged(const struct outgoing_set *set, __u32 tag)
{
#pragma unroll
	for (__u32 i = 0; i < OUTGOING_WAYS; i++)
		if (set->tags[i] == tag)
			return i;
	return OUTGOING_WAYS;
}

/* The place that a header map has in a set; OUTGOING_NOWHERE where it has none there. A global function, which the verifier
 * goes through once: its callers go on in one way, and not in one for each place. */
__noinline __u32 outgoing_place_in(__u32 index, __u32 tag)
{
	const struct outgoing_set *set = outgoing_set_at(index);
	__u32 way = set ? outgoing_tagged(set, tag) : OUTGOING_WAYS;

	return way < OUTGOING_WAYS ? index * OUTGOING_WAYS + way : OUTGOING_NOWHERE;
}

/* The same for those sets where it may be, but for its home. */
__noinline __u32 outgoing_place_elsewhere(__u64 process, __u64 header)
{
	__u32 tag = outgoing_tag(outgoing_key(process, header)), place;

	for (int i = 0; i < OUTGOING_OTHERS; i++) {
		place = outgoing_place_in(outgoing_other(process, header, i), tag);
		if (place != OUTGOING_NOWHERE)
			return place;
	}
	return OUTGOING_NOWHERE;
}

/* The place of a header map; OUTGOING_NOWHERE where it has none, and has had none lately. */
static __always_inline __u32 outgoing_place(__u64 process, __u64 header)
{
	__u32 home = outgoing_home(process, header);
	__u32 place = outgoing_place_in(home, outgoing_tag(outgoing_key(process, header)));
	const struct outgoing_set *set;

	if (likely(place != OUTGOING_NOWHERE))
		return place;
	set = outgoing_set_at(home);
	return set && set->elsewhere ? outgoing_place_elsewhere(process, header) : OUTGOING_NOWHERE;
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
	__u32 place = outgoing_place(process, header);
	struct outgoing_set *set = outgoing_set_at(place / OUTGOING_WAYS);
	__u64 way = place;

	found->key = outgoing_key(process, header);
	if (!set)
		return false;
	MASK(way, OUTGOING_WAYS - 1);
	found->requests = &set->requests[way];
	found->entry = &set->entries[way];
	return true;
}

#define OUTGOING_TRIES	  32
#define OUTGOING_GIVEN_UP (1ULL << 32)

/* Take the turn to look for a place in a set: one at a time, lest two requests with the same header map have two places. It is
 * in one word, on whose changes all processors agree. */
static __always_inline bool outgoing_turn_try(struct outgoing_set *set)
{
	__sync_fetch_and_add(&set->turn, 1);
	if (likely((__u32) * (volatile __u64 *)&set->turn == 1))
		return true;
	__sync_fetch_and_add(&set->turn, -1ULL);
	return false;
}

/* Wait until another one's is over, which takes some ten instructions: for a while, as it may have been interrupted. */
__noinline int outgoing_turn_wait(__u32 index)
{
	struct outgoing_set *set = outgoing_set_at(index);

	if (!set)
		return false;
	for (int i = 0; i < OUTGOING_TRIES; i++)
		if (outgoing_turn_try(set))
			return true;
	__sync_fetch_and_add(&set->turn, OUTGOING_GIVEN_UP);
	return false;
}

static __always_inline bool outgoing_turn(struct outgoing_set *set, __u32 index)
{
	return likely(outgoing_turn_try(set)) || outgoing_turn_wait(index);
}

static __always_inline __u32 outgoing_given_up(const struct outgoing_set *set)
{
	return *(const volatile __u64 *)&set->turn >> 32;
}

static __always_inline void outgoing_turn_over(struct outgoing_set *set)
{
	__sync_fetch_and_add(&set->turn, -1ULL);
}

/* The way of a set that has this tag, or that can have it; OUTGOING_WAYS where all are in use. */
static __always_inline __u64 outgoing_way(const struct outgoing_set *set, __u32 tag)
{
	__u32 way = outgoing_tagged(set, tag);

	if (way < OUTGOING_WAYS)
		return way;
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

/* A request goes without a place: another one with the same header map cannot be told from it. */
__noinline int outgoing_share(__u64 process, __u64 header)
{
	struct outgoing_requests found;

	if (outgoing_header(&found, process, header))
		found.entry->shared = true;
	return 0;
}

#define OUTGOING_REFUSED ((__u32) - 2) /* there is none to be had */

/* Take a place in one of the other sets for the request that this goroutine is about to begin, in its home's turn.
 * OUTGOING_REFUSED where there is none. */
__noinline __u32 outgoing_take_in(__u64 process, __u64 goid, __u32 index)
{
	const struct goroutine_key owner = {process, goid};
	struct goroutine *goroutine = bpf_map_lookup_elem(&goroutines, &owner);
	struct outgoing_set *home, *set = outgoing_set_at(index);
	struct outgoing_call *call;
	__u64 way;

	if (!goroutine || !set)
		return OUTGOING_REFUSED;
	call = &goroutine->outgoing;
	home = outgoing_set_at(call->home);
	if (!home || index == call->home || !outgoing_turn(set, index))
		return OUTGOING_REFUSED;
	way = outgoing_take(set, outgoing_key(process, call->header), &call->context);
	outgoing_turn_over(set);
	if (way >= OUTGOING_WAYS)
		return OUTGOING_REFUSED;
	__sync_fetch_and_add(&home->elsewhere, 1);
	return index * OUTGOING_WAYS + way;
}

/* The same in whichever of them. */
__noinline __u32 outgoing_take_elsewhere(__u64 process, __u64 goid, __u64 header)
{
	__u32 place;

	for (int i = 0; i < OUTGOING_OTHERS; i++) {
		place = outgoing_take_in(process, goid, outgoing_other(process, header, i));
		if (place != OUTGOING_REFUSED)
			return place;
	}
	return OUTGOING_REFUSED;
}

/* The same, but only where its header map has a place already, with a request that is open: OUTGOING_NOWHERE where it has none. */
__noinline __u32 outgoing_join_elsewhere(__u64 process, __u64 goid, __u64 header)
{
	__u32 place = outgoing_place_elsewhere(process, header);
	const struct outgoing_set *set = outgoing_set_at(place / OUTGOING_WAYS);
	__u64 way = place;

	MASK(way, OUTGOING_WAYS - 1);
	if (!set || !set->requests[way])
		return OUTGOING_NOWHERE;
	return outgoing_take_in(process, goid, place / OUTGOING_WAYS);
}

/* The call's header map and context are there. */
static __always_inline void outgoing_header_begin(const struct goroutine_key *key, struct outgoing_call *call)
{
	__u32 home = outgoing_home(key->process, call->header), place = OUTGOING_REFUSED;
	struct outgoing_set *set = outgoing_set_at(home);
	__u32 given_up;
	__u64 way;

	call->place = OUTGOING_NOWHERE;
	call->home = home;
	if (!set)
		return;
	if (likely(outgoing_turn(set, home))) {
		place = OUTGOING_NOWHERE;
		given_up = outgoing_given_up(set);
		if (unlikely(set->elsewhere))
			place = outgoing_join_elsewhere(key->process, key->goid, call->header);
		if (likely(place == OUTGOING_NOWHERE)) {
			way = outgoing_take(set, outgoing_key(key->process, call->header), &call->context);
			if (likely(way < OUTGOING_WAYS))
				place = home * OUTGOING_WAYS + way;
			else
				place = outgoing_take_elsewhere(key->process, key->goid, call->header);
		}
		outgoing_turn_over(set);
		/* One of those may have the same header map. */
		if (unlikely(outgoing_given_up(set) != given_up))
			outgoing_share(key->process, call->header);
	}
	way = place;
	MASK(way, OUTGOING_WAYS - 1);
	set = outgoing_set_at(place / OUTGOING_WAYS);
	if (unlikely(!set)) {
		outgoing_share(key->process, call->header);
		return;
	}
	call->place = place;
	call->takers = set->entries[way].takers;
}

static __always_inline void outgoing_header_end(const struct outgoing_call *call)
{
	__u32 index = call->place / OUTGOING_WAYS;
	struct outgoing_set *set = outgoing_set_at(index);
	__u64 way = call->place;

	if (!set)
		return;
	MASK(way, OUTGOING_WAYS - 1);
	if (set->requests[way] && set->entries[way].takers == call->takers)
		__sync_fetch_and_add(&set->requests[way], -1);
	if (likely(index == call->home))
		return;
	set = outgoing_set_at(call->home);
	if (set)
		__sync_fetch_and_add(&set->elsewhere, -1);
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
	outgoing_header_begin(&hit->key, &goroutine->outgoing);
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
