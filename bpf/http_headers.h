/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Finding a few headers in an http.Header, which is a Go map[string][]string. The hash of a key cannot be computed
 * here, so all entries are looked at, bounded; keys are canonical already (net/textproto.CanonicalMIMEHeaderKey). */
#pragma once

#include "connection_reading.h"
#include "header_sets.h"
#include "span.h"
#include "text.h"

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

/* The headers that are looked for. */
enum http_header {
	HEADER_TRACEPARENT,
	HEADER_TRACESTATE,
	HEADER_USER_AGENT,
	HEADER_FORWARDED,
	HEADER_FORWARDED_FOR,
	HEADER_FORWARDED_HOST,
	HEADER_FORWARDED_PROTO,
	HEADER_HTTP2_SETTINGS,
	HEADERS, /* a power of two: it is a mask as well */
};

#define HEADER_NAME_MAX 24

union header_text {
	char bytes[HEADER_NAME_MAX];
	__u64 words[HEADER_NAME_MAX / 8];
};

struct header_name {
	__u64 length;
	union header_text text;
	__u64 header; /* enum http_header */
};

/* Where a name stands in the table, from its length and first letter: no two of ours meet, so one comparison tells.
 * (Two that met would be a compiler's error: -Winitializer-overrides.) The two cases of a
 * letter have the same place, as they are a multiple of the table's size apart. */
#define HEADER_SLOTS		   32
#define HEADER_SLOT(length, first) (((length) * 5 + (first)) % HEADER_SLOTS)
#define HEADER(first, name, what)  [HEADER_SLOT(sizeof(name) - 1, first)] = {sizeof(name) - 1, {{name}}, what}

static const struct header_name header_table[HEADER_SLOTS] = {
    HEADER('T', "Traceparent", HEADER_TRACEPARENT),
    HEADER('T', "Tracestate", HEADER_TRACESTATE),
    HEADER('U', "User-Agent", HEADER_USER_AGENT),
    HEADER('F', "Forwarded", HEADER_FORWARDED),
    HEADER('X', "X-Forwarded-For", HEADER_FORWARDED_FOR),
    HEADER('X', "X-Forwarded-Host", HEADER_FORWARDED_HOST),
    HEADER('X', "X-Forwarded-Proto", HEADER_FORWARDED_PROTO),
    HEADER('H', "Http2-Settings", HEADER_HTTP2_SETTINGS),
};

/* The lengths that occur in the table, one bit each: most headers need no closer look. */
#define HEADER_LENGTHS	  (1U << 9 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17)
#define TRACEPARENT_NAMES (1U << 11) /* those as long as its */
#define TRACESTATE_NAMES  (1U << 10)

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

/* One look through an http.Header. It lies in a map, one entry a goroutine: not one a processor, as on preemptible
 * kernels from 6.0 another thread may run a program here in the middle of this one; and not on the stack, which is too
 * small. */
struct header_scan {
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
	struct known_connection own; /* the one that the goroutine serves, or writes to, as long as it lives */
	/* captured_headers.h: */
	struct wanted_header_key wanted; /* the name of the header that is looked at */
	__u64 wanted_lengths; /* of the list, a bit each */
	__u64 found_count;
	struct found_header found[GROUP_SLOTS]; /* in the group that is looked at */
	struct go_string found_lines[CAPTURED_LINES]; /* of one of them */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct header_scan);
} header_scans SEC(".maps");

EMPTY_ENTRY(empty_header_scan, struct header_scan);

static __always_inline struct header_scan *header_scan_of(const struct goroutine_key *key)
{
	return find_or_add(&header_scans, &empty_header_scan, key);
}

/* Which of the headers has this name; HEADERS where none has. */
static __always_inline __u32 header_of(const union header_text *name, __u64 length)
{
	__u32 slot = HEADER_SLOT((__u32)length, (__u8)name->bytes[0]);
	const struct header_name *known = &header_table[slot];
	/* In any letter case, which is one bit of a letter: names are canonical in an http.Header, and lower-case in the
	 * metadata of grpc. */
	__u64 differs = ((known->text.words[0] ^ name->words[0]) | (known->text.words[1] ^ name->words[1]) |
			 (known->text.words[2] ^ name->words[2])) &
			~0x2020202020202020ULL;

	return differs || known->length != length ? HEADERS : known->header;
}

/* Read the first of a header's lines. net/http's reader cuts the slices of all headers from one array (net/textproto,
 * ReadMIMEHeader), so most are beside the first one that was read. */
static __always_inline void first_line(struct header_scan *scan, struct go_string *line, __u64 address)
{
	__u64 from = address - scan->near_at;

	if (!scan->near_at) {
		if (!go_read_object(scan->near, sizeof(scan->near), sizeof(scan->near), address)) {
			*line = (struct go_string){};
			return;
		}
		scan->near_at = address;
		from = 0;
	}
	if (from < sizeof(scan->near) && !(from % sizeof(*line))) {
		MASK(from, sizeof(scan->near) - sizeof(*line));
		*line = *(const struct go_string *)((const char *)scan->near + from);
	} else {
		go_read(line, sizeof(*line), address);
	}
}

/* A word of the group, `at` bytes from its start. */
static __always_inline __u64 group_word(const struct header_scan *scan, __u64 at)
{
	MASK(at, GROUP_MAX - 1);
	return *(const any_u64 *)((const char *)scan->group + at);
}

/* Which slots of the scan's current group are in use by names of these lengths, a bit each. Without a jump for each slot,
 * as nobody could foretell these. */
static __always_inline __u64 slots_of_lengths(const struct header_scan *scan, __u64 lengths)
{
	__u64 full = scan->full, slots = 0;
	__u32 i = 0;

	do {
		__u64 length = group_word(scan, scan->shape.keys + i * scan->shape.key_stride + 8);

		/* The top bit of what is below 64 less 64. */
		slots |= ((lengths >> (length & 63)) & ((length - 64) >> 63) & (full >> 7) & 1) << i;
		full >>= 8;
		i++;
		/* Linux 5.10 follows a jump back, but refuses an instruction that falls through to a loop's start, which is
		 * where the compiler would put these two. */
		asm volatile("" : "+r"(i), "+r"(full));
	} while (i < GROUP_SLOTS);
	return slots;
}

/* Look at those entries of the scan's current group whose names are of these lengths, a bit each. It is a loop,
 * although the verifier would rather have it unrolled: a program that runs once a request is not in the processor's cache,
 * so that its length counts. */
static __noinline __attribute__((unused)) int group_scan(struct header_scan *scan, __u64 lengths)
{
	/* On the stack, as the kernel looks closer at what it is to copy to anywhere else. */
	union header_text name;
	struct go_string line;
	__u64 slots = slots_of_lengths(scan, lengths);
	__u32 i = 0;

	if (!slots)
		return 0;
	do {
		__u32 at_key = scan->shape.keys + i * scan->shape.key_stride;
		__u32 at_elem = scan->shape.elems + i * scan->shape.elem_stride;
		__u64 length, lines, header, wanted = slots & 1;

		slots >>= 1;
		i++;
		asm volatile("" : "+r"(i), "+r"(slots));
		if (!wanted)
			continue;
		length = group_word(scan, at_key + 8);
		CLAMP(length, HEADER_NAME_MAX);
		lines = group_word(scan, at_elem + 8);
		line = (struct go_string){};
		__builtin_memset(&name, 0, sizeof(name));
		if (!lines || !go_read(name.bytes, length, group_word(scan, at_key)))
			continue;
		header = header_of(&name, length);
		if (header >= HEADERS)
			continue;
		MASK(header, HEADERS - 1);
		scan->lines[header] = lines;
		/* One alone has no neighbours. */
		if (lengths == TRACEPARENT_NAMES)
			go_read(&line, sizeof(line), group_word(scan, at_elem));
		else
			first_line(scan, &line, group_word(scan, at_elem));
		scan->values[header] = line;
	} while (slots && i < GROUP_SLOTS);
	return 0;
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

/* Look at the entries of a scan's next group, or of the same one again, whose names are of these lengths: whether others
 * follow. A global function, which the verifier goes through once and not once for each group; so it takes the key of the
 * scan, and not the scan (pointers to memory: only since kernel 5.12). */
__noinline int header_scan_step(__u64 process, __u64 goid, __u32 slot, __u32 lengths, __u32 same)
{
	const struct goroutine_key key = {process, goid};
	struct header_scan *scan = bpf_map_lookup_elem(&header_scans, &key);
	const struct header_map_layout *go = bpf_map_lookup_elem(&header_map_layouts, &slot);

	if (!scan || !go || (!same && !group_next(scan, go)))
		return false;
	group_scan(scan, lengths);
	return group_follows(scan);
}

/* The same for all that follow. */
__noinline int header_scan_rest(__u64 process, __u64 goid, __u32 slot, __u32 lengths)
{
	for (int i = 0; i < GROUPS_MAX; i++)
		if (!header_scan_step(process, goid, slot, lengths, false))
			return 0;
	count(COUNTER_HEADERS_UNREAD);
	return 0;
}

static __always_inline void headers_find(const struct hit *hit, __u32 lengths)
{
	header_scan_rest(hit->key.process, hit->key.goid, hit->process->slot, lengths);
}

/* Not inlined: what it needs of the stack is then free for others. */
static __noinline __attribute__((unused)) int context_parse(struct header_scan *scan)
{
	return traceparent_read(&scan->traceparent, &scan->values[HEADER_TRACEPARENT], &scan->remote);
}

/* Begin to look through the http.Header at `map`: for the context that a request carries. False where it carries none. Two
 * lines of it are none: W3C Trace Context, 3.3. */
static __always_inline bool http_headers_context(const struct hit *hit, struct header_scan *scan, __u64 map)
{
	const struct header_map_layout *go = bpf_map_lookup_elem(&header_map_layouts, &hit->process->slot);

	__builtin_memset(scan->lines, 0, sizeof(scan->lines));
	scan->near_at = 0;
	scan->full = 0;
	scan->map = map;
	scan->all_at_hand = true;
	if (!go)
		return false;
	scan->swiss = go->map_directory != GO_UNKNOWN;
	if (!header_map_begin(scan, go) || !group_next(scan, go))
		return false;
	group_scan(scan, TRACEPARENT_NAMES);
	/* Most maps are one group. */
	scan->all_at_hand = !group_follows(scan);
	if (!scan->all_at_hand)
		headers_find(hit, TRACEPARENT_NAMES);
	return scan->lines[HEADER_TRACEPARENT] == 1 && context_parse(scan);
}

/* Then for others. */
static __always_inline void http_headers_others(const struct hit *hit, struct header_scan *scan, __u32 lengths)
{
	const struct header_map_layout *go;

	if (scan->all_at_hand) {
		header_scan_step(hit->key.process, hit->key.goid, hit->process->slot, lengths, true);
		return;
	}
	go = bpf_map_lookup_elem(&header_map_layouts, &hit->process->slot);
	if (go && header_map_begin(scan, go))
		headers_find(hit, lengths);
}

/* Whether it carries one tracestate; a context is passed on with it. */
static __always_inline bool http_headers_state(const struct hit *hit, struct header_scan *scan)
{
	http_headers_others(hit, scan, TRACESTATE_NAMES);
	return scan->lines[HEADER_TRACESTATE] == 1;
}

static __always_inline void http_headers_rest(const struct hit *hit, struct header_scan *scan)
{
	http_headers_others(hit, scan, HEADER_LENGTHS & ~TRACEPARENT_NAMES);
}
