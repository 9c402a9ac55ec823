/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Places for the header maps of clients' requests (outgoing.h): where one can be, is, and is taken. A header map whose requests
 * are open has one place, or none. */
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
	__u32 turn; /* requests that are just about to begin here */
	/* Open requests of which this is the home: */
	__u32 elsewhere; /* that have their places in other sets */
	__u32 placeless_since; /* when the last one began that has none, coarse_time() */
	/* Those that have none, and whose header maps may have one all the same, for others: by a hash of these. */
	__u32 placeless[OUTGOING_WAYS];
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

/* Where requests without a place are counted: an index. */
static __always_inline __u64 outgoing_count(__u64 key)
{
	key >>= 40;
	MASK(key, OUTGOING_WAYS - 1);
	return key;
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

#define OUTGOING_TRIES 64

/* Take the turn to look for a place in a set: one at a time, lest two requests with the same header map have two places. It is
 * one word, on whose changes all processors agree. */
static __always_inline bool outgoing_turn_try(struct outgoing_set *set)
{
	__sync_fetch_and_add(&set->turn, 1);
	if (likely(*(volatile __u32 *)&set->turn == 1))
		return true;
	__sync_fetch_and_add(&set->turn, -1);
	return false;
}

/* Wait until another one's is over, which takes some ten instructions: but not for long, as it may have been interrupted. Chance
 * has a say in when to try again, or two that keep step would turn each other away again and again. */
__noinline int outgoing_turn_wait(__u32 index)
{
	struct outgoing_set *set = outgoing_set_at(index);

	if (!set)
		return false;
	for (int i = 0; i < OUTGOING_TRIES; i++)
		if (bpf_get_prandom_u32() & 1 && outgoing_turn_try(set))
			return true;
	return false;
}

static __always_inline bool outgoing_turn(struct outgoing_set *set, __u32 index)
{
	return likely(outgoing_turn_try(set)) || outgoing_turn_wait(index);
}

static __always_inline void outgoing_turn_over(struct outgoing_set *set)
{
	__sync_fetch_and_add(&set->turn, -1);
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
