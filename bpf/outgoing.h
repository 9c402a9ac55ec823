/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Requests that clients are about to send, and the trace context that shall go out with each. A client notes one when it
 * starts; whoever writes the request, on another goroutine, finds it by the request's header map or by the goroutine that
 * called. Exactly that one, or none. */
#pragma once

#include "outgoing_sets.h"

/* The open requests that have a header map: how many, and what is known of them. */
struct outgoing_requests {
	__u64 key;
	const __u32 *requests;
	const struct outgoing_set *home;
	struct outgoing *entry;
};

/* False where there is none, and has been none lately. */
static __always_inline bool outgoing_header(struct outgoing_requests *found, __u64 process, __u64 header)
{
	__u32 place = outgoing_place(process, header);
	struct outgoing_set *set = outgoing_set_at(place / OUTGOING_WAYS);
	__u64 way = place;

	found->key = outgoing_key(process, header);
	found->home = outgoing_set_at(outgoing_home(process, header));
	if (!set || !found->home)
		return false;
	MASK(way, OUTGOING_WAYS - 1);
	found->requests = &set->requests[way];
	found->entry = &set->entries[way];
	return true;
}

/* Whether all requests that may have the same header map have its place. */
static __always_inline bool outgoing_all_have_places(const struct outgoing_requests *found)
{
	const struct outgoing_set *home = found->home;

	return likely(!*(const volatile __u32 *)&home->placeless[outgoing_count(found->key)]) ||
	       (__u32)coarse_time() - home->placeless_since >= OUTGOING_MISSED;
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

/* The same, but only where its header map has a place already, with a request that is open; OUTGOING_NOWHERE where it has
 * none. */
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
	__u64 way;

	call->place = OUTGOING_NOWHERE;
	call->home = home;
	if (!set)
		return;
	if (likely(outgoing_turn(set, home))) {
		place = OUTGOING_NOWHERE;
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
	}
	if (unlikely(place >= OUTGOING_REFUSED)) {
		set->placeless_since = coarse_time();
		way = outgoing_count(outgoing_key(key->process, call->header));
		__sync_fetch_and_add(&set->placeless[way], 1);
		call->takers = way;
		return;
	}
	way = place;
	MASK(way, OUTGOING_WAYS - 1);
	set = outgoing_set_at(place / OUTGOING_WAYS);
	if (!set)
		return;
	call->place = place;
	call->takers = set->entries[way].takers;
}

static __always_inline void outgoing_header_end(const struct outgoing_call *call)
{
	__u32 index = call->place / OUTGOING_WAYS;
	struct outgoing_set *home = outgoing_set_at(call->home), *set = outgoing_set_at(index);
	__u64 way = call->place;

	if (!home)
		return;
	if (unlikely(!set)) {
		way = call->takers;
		MASK(way, OUTGOING_WAYS - 1);
		__sync_fetch_and_add(&home->placeless[way], -1);
		return;
	}
	MASK(way, OUTGOING_WAYS - 1);
	if (set->requests[way] && set->entries[way].takers == call->takers)
		__sync_fetch_and_add(&set->requests[way], -1);
	if (unlikely(index != call->home))
		__sync_fetch_and_add(&home->elsewhere, -1);
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
	       outgoing_all_have_places(found) && found->entry->seal == outgoing_seal(found->key, context);
}
