/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What writers of trace context share: whether the program sends one itself, what came with it, and the buffered writer
 * of a connection. */
#pragma once

#include "connection.h"
#include "http_headers.h"
#include "outgoing.h"
#include "tracestate.h"

/* A *bufio.Writer: {err error; buf []byte; n int; wr io.Writer} in every Go version so far. It is read at once. */
#define WRITER_WORDS 8

struct buffered_writer_layout {
	go_offset error GO_EXACT("bufio.Writer.err");
	go_offset buffer GO_EXACT("bufio.Writer.buf");
	go_offset used GO_EXACT("bufio.Writer.n");
	go_offset target GO_EXACT("bufio.Writer.wr");
	go_address type GO_ITAB("*bufio.Writer", "io.Writer");
};

LAYOUTS(buffered_writer_layouts, struct buffered_writer_layout);

struct buffered_writer {
	struct go_slice buffer;
	__u64 used; /* bytes of it */
	__u64 error; /* not 0: nothing is written any more */
	struct go_interface target; /* what it writes to: tells whose it is */
};

static __always_inline __u64 writer_word(const __u64 *words, go_offset offset)
{
	return words[(offset >> 3) & (WRITER_WORDS - 1)];
}

static __always_inline bool buffered_writer_read(struct buffered_writer *writer, __u64 address,
						 const struct buffered_writer_layout *go)
{
	const __u32 last = (WRITER_WORDS - 1) * 8;
	__u64 words[WRITER_WORDS];

	if (go->error > last || go->buffer > last - 16 || go->used > last || go->target > last - 8 ||
	    !go_read(words, sizeof(words), address))
		return false;
	writer->error = writer_word(words, go->error);
	writer->buffer.data = writer_word(words, go->buffer);
	writer->buffer.length = writer_word(words, go->buffer + 8);
	writer->used = writer_word(words, go->used);
	writer->target.type = writer_word(words, go->target);
	writer->target.data = writer_word(words, go->target + 8);
	return true;
}

/* Is a header's name, in whatever case, `traceparent` or `tracestate`? The bytes behind the name are zero. */
static __always_inline bool is_trace_header(const union header_text *name, __u64 length)
{
	const __u64 lower = 0x2020202020202020ULL;
	__u64 first = name->words[0] | lower, rest = name->words[1] | (lower >> (length == 11 ? 40 : 48));

	if (length == 11) /* "tracepar" "ent" */
		return first == 0x7261706563617274ULL && rest == 0x746e65ULL;
	return first == 0x6174736563617274ULL && rest == 0x6574ULL; /* "tracesta" "te" */
}

/* Whether one of the two may be in the scan's current group. A loop, as group_scan is. */
static __noinline __attribute__((unused)) int group_has_trace_header(struct header_scan *scan)
{
	union header_text *name = &scan->name;
	__u64 full = scan->full;
	__u32 i = 0;

	do {
		__u32 at_key = scan->shape.keys + i * scan->shape.key_stride;
		__u64 length, top = full & 0x80;

		full >>= 8;
		i++;
		asm volatile("" : "+r"(i), "+r"(full));
		if (!top)
			continue;
		length = group_word(scan, at_key + 8);
		if (length != 10 && length != 11)
			continue;
		__builtin_memset(name, 0, sizeof(*name));
		/* What can't be read may be one. */
		if (!go_read(name->bytes, 10 + (length & 1), group_word(scan, at_key)) ||
		    is_trace_header(name, length))
			return 1;
	} while (i < GROUP_SLOTS);
	return 0;
}

enum trace_header {
	TRACE_HEADER_NONE,
	TRACE_HEADER_MAYBE,
	TRACE_HEADER_NOT_YET, /* there are more groups */
};

/* Go to the next group of a header map. A global function for the same reasons as header_scan_step. */
__noinline int trace_header_step(__u32 place, __u32 slot)
{
	struct header_scan *scan = header_scan_at(place);
	const struct header_map_layout *go = bpf_map_lookup_elem(&header_map_layouts, &slot);

	if (!scan || !go || !group_next(scan, go) || group_has_trace_header(scan))
		return TRACE_HEADER_MAYBE;
	return group_follows(scan) ? TRACE_HEADER_NOT_YET : TRACE_HEADER_NONE;
}

/* Whether a request whose headers are in `map` sends trace context of its own. Also where that can't be told. */
static __always_inline bool scan_has_trace_header(const struct hit *hit, struct header_scan *scan, __u64 map)
{
	__u32 slot = hit->process->slot;
	const struct header_map_layout *go = bpf_map_lookup_elem(&header_map_layouts, &slot);

	if (!go)
		return true;
	scan->map = map;
	scan->swiss = go->map_directory != GO_UNKNOWN;
	if (!header_map_begin(scan, go))
		/* A map without entries may have no memory for them either. */
		return scan->swiss ? scan->at.directory : scan->at.buckets;
	for (int i = 0; i < GROUPS_MAX; i++) {
		int step = trace_header_step(scan->place, slot);

		if (step != TRACE_HEADER_NOT_YET)
			return step == TRACE_HEADER_MAYBE;
	}
	return true;
}

static __always_inline bool has_trace_header(const struct hit *hit, __u64 map)
{
	struct header_scan *scan = header_scan_take();
	bool has;

	if (!scan)
		return true;
	has = scan_has_trace_header(hit, scan, map);
	header_scan_give(scan);
	return has;
}

/* Write the `length` bytes, at least one, of a tracestate. */
static __always_inline bool tracestate_write(__u64 address, const struct tracestate *state, __u64 length)
{
	if ((__s64)address <= 0)
		return false;
	length--;
	MASK(length, TRACESTATE_KEPT - 1);
	return !bpf_probe_write_user((void *)address, state->text, length + 1);
}
