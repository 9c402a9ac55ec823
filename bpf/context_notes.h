/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is noted of Go contexts, and where. As each request has a context of its own, a hash map would have to make an entry
 * for each, and give one up, at a multiple of the cost. So a note has its place in a set that the context's address tells,
 * and takes that of the note there which was made or looked for least recently. */
#pragma once

#include "trace_context.h"

#define CONTEXT_WAYS 8

struct context_key {
	__u64 process; /* struct process.id */
	__u64 address; /* the context's, an interface's data word */
};

struct context_span {
	struct trace_context trace;
	__u64 goid; /* whose span it is */
	__u64 parent; /* the context's second word when it was noted: the address of its parent */
	__u64 whose; /* enum context_owner */
};

struct context_note {
	__u64 seal; /* over all that follows: one processor may be at it while another one reads it */
	struct context_key key;
	struct context_span span;
};

/* What is looked at first stands together. */
struct context_set {
	__u32 tags[CONTEXT_WAYS]; /* of the keys; 0: nobody's */
	__u32 used[CONTEXT_WAYS]; /* when they were made or looked for last, coarse_time() */
	struct context_note notes[CONTEXT_WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct context_set);
} contexts SEC(".maps");

const volatile __u32 context_sets = 2048; /* how many there are */

#define CONTEXT_NOWHERE ((__u32) - 1)

static __always_inline __u64 context_hash(__u64 process, __u64 address)
{
	__u64 hash = (address ^ process * 0x9e3779b97f4a7c15ULL) * 0xbf58476d1ce4e5b9ULL;

	return hash ^ hash >> 32;
}

static __always_inline __u32 context_home(__u64 hash)
{
	return (hash & 0xffffffff) * context_sets >> 32;
}

static __always_inline __u32 context_tag(__u64 hash)
{
	return hash >> 32 | 1;
}

static __always_inline __u64 context_seal(__u64 process, __u64 address, const struct context_span *span)
{
	const volatile __u64 *words = (const volatile __u64 *)span;
	__u64 seal = process * 0x9e3779b97f4a7c15ULL + address;

	_Static_assert(sizeof(*span) == 7 * sizeof(*words), "all of its words are sealed");
#pragma unroll
	for (int i = 0; i < 7; i++)
		seal = (seal ^ words[i]) * 0xbf58476d1ce4e5b9ULL;
	return seal ^ seal >> 32;
}

static __always_inline struct context_set *context_set_at(__u32 index)
{
	return bpf_map_lookup_elem(&contexts, &index);
}

/* Is this note still of that context, and all of a piece? */
static __always_inline bool context_is_kept(const struct context_note *note, __u64 process, __u64 address)
{
	return note->seal == context_seal(process, address, &note->span);
}

/* The way of a set that has this tag; CONTEXT_WAYS where none has. */
static __always_inline __u32 context_way(const struct context_set *set, __u32 tag)
{
#pragma unroll
	for (__u32 i = 0; i < CONTEXT_WAYS; i++)
		if (set->tags[i] == tag)
			return i;
	return CONTEXT_WAYS;
}

/* The way that has this tag, else the one that has not been used for the longest time. */
static __always_inline __u32 context_way_for(const struct context_set *set, __u32 tag, __u32 now)
{
	__u32 way = context_way(set, tag), oldest = 0;

	if (way < CONTEXT_WAYS)
		return way;
#pragma unroll
	for (__u32 i = 0; i < CONTEXT_WAYS; i++) {
		__u32 age = now - set->used[i];

		if (age < oldest)
			continue;
		oldest = age;
		way = i;
	}
	return way;
}

/* Where the note of a context is, by its number; CONTEXT_NOWHERE where there is none, or no longer. A global function, which
 * the verifier goes through once: its callers go on in one way, and not in one for each place. */
__noinline __u32 context_look_up(__u64 process, __u64 address)
{
	__u64 hash = context_hash(process, address), way;
	__u32 home = context_home(hash), now;
	struct context_set *set = context_set_at(home);

	if (!set)
		return CONTEXT_NOWHERE;
	way = context_way(set, context_tag(hash));
	if (way >= CONTEXT_WAYS)
		return CONTEXT_NOWHERE;
	MASK(way, CONTEXT_WAYS - 1);
	if (!context_is_kept(&set->notes[way], process, address))
		return CONTEXT_NOWHERE;
	now = coarse_time();
	if (set->used[way] != now)
		set->used[way] = now;
	return home * CONTEXT_WAYS + way;
}

/* The note at a place, NULL where there is none. Another processor may have taken it: what has been read counts if it is kept
 * still. */
static __always_inline const struct context_note *context_note_at(__u32 place)
{
	const struct context_set *set = context_set_at(place / CONTEXT_WAYS);
	__u64 way = place;

	MASK(way, CONTEXT_WAYS - 1);
	return set ? &set->notes[way] : NULL;
}

/* A place for the note of a context: the one that it has, or that of the note which it takes the place of. */
__noinline __u32 context_place_for(__u64 process, __u64 address)
{
	__u64 hash = context_hash(process, address), way;
	__u32 home = context_home(hash), now = coarse_time();
	struct context_set *set = context_set_at(home);

	if (!set)
		return CONTEXT_NOWHERE;
	way = context_way_for(set, context_tag(hash), now);
	MASK(way, CONTEXT_WAYS - 1);
	set->tags[way] = context_tag(hash);
	set->used[way] = now;
	return home * CONTEXT_WAYS + way;
}

/* Note it; what was noted of another context at the same address is forgotten. */
static __always_inline void context_keep(const struct context_key *key, const struct context_span *span)
{
	__u32 place = context_place_for(key->process, key->address);
	struct context_set *set = context_set_at(place / CONTEXT_WAYS);
	__u64 way = place;

	if (!set)
		return;
	MASK(way, CONTEXT_WAYS - 1);
	set->notes[way].key = *key;
	set->notes[way].span = *span;
	set->notes[way].seal = context_seal(key->process, key->address, span);
}

static __always_inline void context_forget(const struct context_key *key)
{
	__u32 place = context_look_up(key->process, key->address);
	struct context_set *set = context_set_at(place / CONTEXT_WAYS);
	__u64 way = place;

	if (!set)
		return;
	MASK(way, CONTEXT_WAYS - 1);
	set->tags[way] = 0;
	set->used[way] = 0;
}
