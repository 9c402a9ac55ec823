/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Finding a few headers in an http.Header. Keys are canonical already (net/textproto.CanonicalMIMEHeaderKey). */
#pragma once

#include "header_scan.h"
#include "span.h"
#include "text.h"

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

/* Look at the entries of a scan's next group, or of the same one again, whose names are of these lengths: whether others
 * follow. A global function, which the verifier goes through once and not once for each group; so it takes the place of the
 * scan, and not the scan (pointers to memory: only since kernel 5.12). */
__noinline int header_scan_step(__u32 place, __u32 slot, __u32 lengths, __u32 same)
{
	struct header_scan *scan = header_scan_at(place);
	const struct header_map_layout *go = bpf_map_lookup_elem(&header_map_layouts, &slot);

	if (!scan || !go || (!same && !group_next(scan, go)))
		return false;
	group_scan(scan, lengths);
	return group_follows(scan);
}

/* The same for all that follow. */
__noinline int header_scan_rest(__u32 place, __u32 slot, __u32 lengths)
{
	for (int i = 0; i < GROUPS_MAX; i++)
		if (!header_scan_step(place, slot, lengths, false))
			return 0;
	count(COUNTER_HEADERS_UNREAD);
	return 0;
}

static __always_inline void headers_find(const struct hit *hit, const struct header_scan *scan, __u32 lengths)
{
	header_scan_rest(scan->place, hit->process->slot, lengths);
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
		headers_find(hit, scan, TRACEPARENT_NAMES);
	return scan->lines[HEADER_TRACEPARENT] == 1 && context_parse(scan);
}

/* Then for others. */
static __always_inline void http_headers_others(const struct hit *hit, struct header_scan *scan, __u32 lengths)
{
	const struct header_map_layout *go;

	if (scan->all_at_hand) {
		header_scan_step(scan->place, hit->process->slot, lengths, true);
		return;
	}
	go = bpf_map_lookup_elem(&header_map_layouts, &hit->process->slot);
	if (go && header_map_begin(scan, go))
		headers_find(hit, scan, lengths);
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
