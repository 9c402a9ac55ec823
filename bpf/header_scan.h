/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Walking through an http.Header, which is a Go map[string][]string, group by group. The hash of a key cannot be computed
 * here, so all entries are looked at, bounded. */
#pragma once

#include "header_names.h"
#include "header_sets.h"
#include "hit.h"

/* Where a Go map keeps its entries: runtime.hmap up to Go 1.23, internal/runtime/maps.Map (a Swiss map) from 1.24. */
struct header_map_layout {
	go_offset hmap_flags GO("runtime.hmap.flags");
	go_offset hmap_b GO("runtime.hmap.B");
	go_offset hmap_buckets GO("runtime.hmap.buckets");
	go_offset hmap_old_buckets GO("runtime.hmap.oldbuckets");
	go_offset map_directory GO("internal/runtime/maps.Map.dirPtr");
	go_offset map_directory_length GO("internal/runtime/maps.Map.dirLen");
	go_offset table_groups GO("internal/runtime/maps.table.groups.data");
	go_offset table_groups_mask GO("internal/runtime/maps.table.groups.lengthMask");
	go_offset group_size GO_MAP("net/http.Header", "group_size");
	go_offset group_keys GO_MAP("net/http.Header", "key_offset");
	go_offset group_key_stride GO_MAP("net/http.Header", "key_stride");
	go_offset group_elems GO_MAP("net/http.Header", "elem_offset");
	go_offset group_elem_stride GO_MAP("net/http.Header", "elem_stride");
};

LAYOUTS(header_map_layouts, struct header_map_layout);

#define GROUP_SLOTS 8 /* entries in a group, and in a bucket of old: fixed in every Go version */
#define GROUPS_MAX  64 /* looked at: far over 100 headers in any map */

/* runtime.bmap with 16-byte keys and 24-byte values: 8 bytes tophash, the keys, the values, the overflow bucket. */
#define BUCKET_KEYS	8
#define BUCKET_ELEMS	(BUCKET_KEYS + GROUP_SLOTS * 16)
#define BUCKET_OVERFLOW (BUCKET_ELEMS + GROUP_SLOTS * 24)
#define BUCKET_SIZE	(BUCKET_OVERFLOW + 8)
#define MIN_TOP_HASH	5 /* below: empty, or moved to another bucket */
#define SAME_SIZE_GROW	8 /* in hmap.flags: as many old buckets as new ones, not half of them */

/* Of one group or bucket: where keys and elements lie in it, and how far apart. */
struct group_shape {
	__u32 keys, key_stride, elems, elem_stride;
};

/* Where the walk through a map stands. */
struct group_cursor {
	__u64 directory, tables, next_table, seen_table; /* Swiss map: tables, 0 for a small map */
	__u64 groups, last_group, next_group; /* Swiss map: of the current table */
	__u64 buckets, last_bucket, next_bucket, bucket, old_buckets, last_old_bucket; /* hash map */
};

#define GROUP_MAX  512 /* bytes, a power of two */
#define NEAR_WORDS 32

/* One look through an http.Header. The stack is too small for it, so it lies in a map. */
struct header_scan {
	__u32 users; /* 1: a program is at it */
	__u32 place; /* of this one in the map */
	struct go_string values[HEADERS]; /* found: the first line of that name */
	__u64 lines[HEADERS]; /* found: how many lines of that name */
	struct group_cursor at;
	struct group_shape shape;
	__u64 group[GROUP_MAX / 8 + 1]; /* the group or bucket that is looked at; a word more than it can be */
	__u64 near
	    [NEAR_WORDS]; /* what lies at `near_at`: the lines of the first header that was found, and its neighbours */
	__u64 near_at;
	__u32 swiss; /* what kind of map it is */
	__u64 full; /* those of its 8 slots that are in use, the top bit of a byte each; 0: nothing to look at */
	__u64 map; /* whose groups these are */
	bool all_at_hand; /* the current group is the only one, or there is none */
	struct go_window window; /* of the server: the request */
	union header_text name; /* of the entry that is looked at; the stack has no room */
	struct traceparent traceparent; /* room to parse one */
	struct trace_context remote; /* what it says */
	struct connection_reading connection; /* of a request that is looked at */
	/* captured_headers.h: */
	struct wanted_header_key wanted; /* the name of the header that is looked at */
	__u64 wanted_lengths; /* of the list, a bit each */
	__u64 found_count;
	struct found_header found[GROUP_SLOTS]; /* in the group that is looked at */
	struct go_string found_lines[CAPTURED_LINES]; /* of one of them */
};

/* A few for each processor. One is not enough: on preemptible kernels from 6.0 another thread may run a program here in the
 * middle of this one. It then takes the next; whoever comes when all are taken has to do without. */
#define SCANS_PER_CPU 4

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCANS_PER_CPU);
	__type(key, __u32);
	__type(value, struct header_scan);
} header_scans SEC(".maps");

static __always_inline struct header_scan *header_scan_at(__u32 place)
{
	return bpf_map_lookup_elem(&header_scans, &place);
}

/* Claim a scan that nobody is at: its place; one that is none, and counted, where all are taken. A global function, which
 * the verifier goes through once. */
__noinline __u32 header_scan_claim(void)
{
	__u32 first = bpf_get_smp_processor_id() * SCANS_PER_CPU;

#pragma unroll
	for (__u32 i = 0; i < SCANS_PER_CPU; i++) {
		__u32 place = first + i;
		struct header_scan *scan = header_scan_at(place);

		if (!scan)
			break;
		/* Of two that come at a time none may see that it is the only one: then both go on to the next. */
		__sync_fetch_and_add(&scan->users, 1);
		if (likely(*(volatile __u32 *)&scan->users == 1)) {
			scan->place = place;
			return place;
		}
		__sync_fetch_and_add(&scan->users, -1);
	}
	count(COUNTER_HEADERS_UNREAD);
	return -1;
}

/* Take a scan, for no longer than this program runs; NULL where there is none. A program that goes on at another processor
 * meanwhile has it all the same. */
static __always_inline struct header_scan *header_scan_take(void)
{
	return header_scan_at(header_scan_claim());
}

/* What was taken is anybody's again. */
static __always_inline void header_scan_give(struct header_scan *scan)
{
	__sync_fetch_and_add(&scan->users, -1);
}

/* A word of the group, `at` bytes from its start. */
static __always_inline __u64 group_word(const struct header_scan *scan, __u64 at)
{
	MASK(at, GROUP_MAX - 1);
	return *(const any_u64 *)((const char *)scan->group + at);
}

/* The top bit of each slot's byte that is in use, from a group's control word or a bucket's tophashes. */
static __always_inline __u64 slots_in_use(__u64 word, bool swiss)
{
	const __u64 ones = 0x0101010101010101ULL, tops = ones << 7;

	return (swiss ? ~word : ((word | tops) - ones * MIN_TOP_HASH) | word) & tops;
}

/* Read the next group of a Swiss map (internal/runtime/maps): a small map is one group; a larger one a directory of
 * tables, each an array of groups. False at the end, or where it cannot be read. */
static __always_inline bool swiss_map_next(struct header_scan *scan, const struct header_map_layout *go)
{
	struct group_cursor *at = &scan->at;
	__u32 size = go->group_size;
	struct go_pair groups;
	__u64 table = 0;

	if (at->next_group > at->last_group) {
		if (at->next_table >= at->tables || !go_read(&table, 8, at->directory + at->next_table++ * 8))
			return false;
		/* Neighbours in the directory may be the same table. */
		if (table == at->seen_table) {
			scan->full = 0;
			return true;
		}
		at->seen_table = table;
		at->next_group = 0;
		if (!go_read_pair(&groups, table, go->table_groups, go->table_groups_mask))
			return false;
		at->groups = groups.first;
		at->last_group = groups.second;
	}
	if (!go_read_object(scan->group, GROUP_MAX, size, at->groups + at->next_group++ * size))
		return false;
	scan->full = slots_in_use(scan->group[0], true);
	return true;
}

static __always_inline bool swiss_map_begin(struct header_scan *scan, const struct header_map_layout *go, __u64 map)
{
	struct group_cursor *at = &scan->at;
	struct go_pair directory;

	if (!go_read_pair(&directory, map, go->map_directory, go->map_directory_length))
		return false;
	at->directory = directory.first;
	at->tables = directory.second;
	at->next_table = 0;
	at->seen_table = 0;
	at->groups = at->directory;
	at->last_group = 0;
	at->next_group = at->tables ? 1 : 0;
	scan->shape.keys = go->group_keys;
	scan->shape.key_stride = go->group_key_stride;
	scan->shape.elems = go->group_elems;
	scan->shape.elem_stride = go->group_elem_stride;
	return at->directory;
}

/* Read the next bucket of a hash map (runtime.hmap): 2^B buckets, each with a chain of overflow buckets; and, while
 * the map grows, the old ones, whose entries are marked where they have been moved. */
static __always_inline bool hash_map_next(struct header_scan *scan)
{
	struct group_cursor *at = &scan->at;

	if (!at->bucket) {
		if (at->next_bucket > at->last_bucket) {
			if (!at->old_buckets)
				return false;
			at->buckets = at->old_buckets;
			at->old_buckets = 0;
			at->next_bucket = 0;
			at->last_bucket = at->last_old_bucket;
		}
		at->bucket = at->buckets + at->next_bucket++ * BUCKET_SIZE;
	}
	if (!go_read_object(scan->group, GROUP_MAX, BUCKET_SIZE, at->bucket))
		return false;
	scan->full = slots_in_use(scan->group[0], false);
	at->bucket = scan->group[BUCKET_OVERFLOW / 8];
	return true;
}

static __always_inline bool hash_map_begin(struct header_scan *scan, const struct header_map_layout *go, __u64 map)
{
	struct group_cursor *at = &scan->at;
	__u8 b = 0, flags = 0;

	if (!go_read_field(&b, 1, map, go->hmap_b) || !go_read_field(&flags, 1, map, go->hmap_flags) ||
	    !go_read_field(&at->buckets, 8, map, go->hmap_buckets) ||
	    !go_read_field(&at->old_buckets, 8, map, go->hmap_old_buckets))
		return false;
	at->bucket = 0;
	at->next_bucket = 0;
	at->last_bucket = (1ULL << (b & 31)) - 1;
	at->last_old_bucket = flags & SAME_SIZE_GROW ? at->last_bucket : at->last_bucket >> 1;
	scan->shape.keys = BUCKET_KEYS;
	scan->shape.key_stride = 16;
	scan->shape.elems = BUCKET_ELEMS;
	scan->shape.elem_stride = 24;
	return at->buckets;
}

static __always_inline bool group_next(struct header_scan *scan, const struct header_map_layout *go)
{
	return scan->swiss ? swiss_map_next(scan, go) : hash_map_next(scan);
}

/* Whether there is another group behind the current one. */
static __always_inline bool group_follows(const struct header_scan *scan)
{
	return scan->swiss ? scan->at.next_group <= scan->at.last_group || scan->at.next_table < scan->at.tables
			   : scan->at.bucket || scan->at.next_bucket <= scan->at.last_bucket || scan->at.old_buckets;
}

static __always_inline bool header_map_begin(struct header_scan *scan, const struct header_map_layout *go)
{
	return scan->map &&
	       (scan->swiss ? swiss_map_begin(scan, go, scan->map) : hash_map_begin(scan, go, scan->map));
}
