/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The headers of a request or response that the user wants to have in spans (header_sets.h): found in the http.Header by
 * another walk through it, which only processes pay for that such headers are named for; their values go behind the other
 * texts of the span's record. */
#pragma once

#include "header_sets.h"
#include "http_headers.h"

#define CAPTURED_VALUE_MAX 256 /* bytes */
#define CAPTURE_STEPS_MAX  (GROUPS_MAX + 32)

/* A line of a header, in a record: this, and the bytes of its value behind it. The next one follows at once. */
struct captured_header {
	__u16 name; /* struct wanted_header.number */
	__u16 length; /* bytes that are there; TEXT_CUT or CAPTURED_SECRET are added */
};

#define CAPTURED_SECRET 0x4000 /* the value was not read */

/* Makes the struct part of the object's BTF. */
const struct captured_header *const volatile captured_header_type = NULL;

/* Append a line of a header to a record, up to `room` bytes (a constant); false where there is none left. */
static __always_inline bool captured_append(struct record_header *record, __u32 room,
					    const struct wanted_header *header, const struct go_string *value)
{
	const __u32 most = sizeof(struct captured_header) + CAPTURED_VALUE_MAX;
	__u64 at = record->length, length = value->length;
	__u32 mark = 0;
	char *to;

	if (at > room - most)
		return false;
	CLAMP(at, room - most);
	to = (char *)record + at;
	if (header->is_secret) {
		mark = CAPTURED_SECRET;
		length = 0;
	} else if (length > CAPTURED_VALUE_MAX) {
		count(COUNTER_TEXTS_CUT);
		mark = TEXT_CUT;
		length = CAPTURED_VALUE_MAX;
	}
	CLAMP(length, CAPTURED_VALUE_MAX);
	if (length && !go_read(to + sizeof(struct captured_header), length, value->data))
		return true;
	*(any_u32 *)to = header->number | (__u32)(length | mark) << 16;
	record->length = at + sizeof(struct captured_header) + length;
	return true;
}

/* What an object that includes this says: the record of a goroutine's span, NULL where it has none; and up to how many bytes
 * headers may fill it, a constant. */
static __always_inline struct record_header *captured_record(const struct goroutine_key *key);
static __always_inline __u32 captured_room(void);

/* Append the lines of the last of the `found` headers that captured_step has found in a group; how many are left then. */
__noinline int captured_lines(__u64 process, __u64 goid, __u32 place, __u64 found)
{
	const struct goroutine_key key = {process, goid};
	struct header_scan *scan = header_scan_at(place);
	struct record_header *record = captured_record(&key);
	const struct found_header *header;
	__u64 lines, size;

	if (!scan || !record || !found)
		return 0;
	found--;
	MASK(found, GROUP_SLOTS - 1);
	header = &scan->found[found];
	lines = header->lines;
	if (lines > CAPTURED_LINES) {
		count(COUNTER_HEADER_LINES_LEFT_OUT);
		lines = CAPTURED_LINES;
	}
	size = lines * sizeof(struct go_string);
	CLAMP(size, sizeof(scan->found_lines));
	if (!size || !go_read(scan->found_lines, size, header->address))
		return found;
#pragma unroll
	for (__u32 i = 0; i < CAPTURED_LINES; i++) {
		if (i < lines && !captured_append(record, captured_room(), &header->wanted, &scan->found_lines[i])) {
			count(COUNTER_HEADER_LINES_LEFT_OUT);
			break;
		}
	}
	return found;
}

/* Go to the next group of a scan and find the headers in it that are wanted; how many, -1 at the end. A global function for the
 * same reasons as header_scan_step. */
__noinline int captured_step(__u32 place, __u32 slot)
{
	struct header_scan *scan = header_scan_at(place);
	const struct header_map_layout *go = bpf_map_lookup_elem(&header_map_layouts, &slot);
	const struct wanted_header *header;
	__u64 length, found;

	if (!scan || !go || !group_next(scan, go))
		return -1;
	scan->found_count = 0;
#pragma unroll
	for (__u32 i = 0; i < GROUP_SLOTS; i++) {
		__u32 at_key = scan->shape.keys + i * scan->shape.key_stride;
		__u32 at_elem = scan->shape.elems + i * scan->shape.elem_stride;

		if (!(scan->full >> (8 * i + 7) & 1))
			continue;
		length = group_word(scan, at_key + 8);
		if (length > WANTED_NAME_MAX || !(scan->wanted_lengths >> length & 1))
			continue;
		CLAMP(length, WANTED_NAME_MAX);
		__builtin_memset(&scan->wanted.name, 0, sizeof(scan->wanted.name));
		if (!go_read(scan->wanted.name, length, group_word(scan, at_key)))
			continue;
#pragma unroll
		for (__u32 word = 0; word < WANTED_NAME_MAX / 8; word++)
			((any_u64 *)scan->wanted.name)[word] |= LOWER_CASE * 0x0101010101010101ULL;
		header = bpf_map_lookup_elem(&wanted_headers, &scan->wanted);
		if (!header)
			continue;
		found = scan->found_count++;
		MASK(found, GROUP_SLOTS - 1);
		scan->found[found].wanted = *header;
		scan->found[found].lines = group_word(scan, at_elem + 8);
		scan->found[found].address = group_word(scan, at_elem);
	}
	return scan->found_count;
}

/* The set of a process and which of its lists is meant, as one number. */
static __always_inline __u64 wanted_list(__u32 set, enum http_message message)
{
	return set | (__u64)message << 32;
}

/* Append what is wanted of the groups that follow. Global functions, this one and the next: the verifier would follow the
 * loop from every state in which it may begin. */
__noinline int captured_rest(__u64 process, __u64 goid, __u32 place, __u32 slot)
{
	int found = 0;

	for (int i = 0; i < CAPTURE_STEPS_MAX; i++) {
		found = found ? captured_lines(process, goid, place, found) : captured_step(place, slot);
		if (found < 0)
			return 0;
	}
	count(COUNTER_HEADERS_UNREAD);
	return 0;
}

/* Begin to look through the http.Header at `map`; whether something may be wanted of it. */
__noinline int captured_begin(__u32 place, __u32 slot, __u64 map, __u64 list)
{
	const struct header_map_layout *go = bpf_map_lookup_elem(&header_map_layouts, &slot);
	struct header_scan *scan = header_scan_at(place);
	__u32 set = list, message = list >> 32;
	const struct header_set *wanted = bpf_map_lookup_elem(&header_sets, &set);

	if (!go || !scan || !wanted)
		return 0;
	scan->wanted_lengths =
	    message == MESSAGE_REQUEST ? wanted->lengths[MESSAGE_REQUEST] : wanted->lengths[MESSAGE_RESPONSE];
	scan->wanted.set = set;
	scan->wanted.message = message;
	scan->swiss = go->map_directory != GO_UNKNOWN;
	scan->map = map;
	return scan->wanted_lengths && header_map_begin(scan, go);
}

/* Append what is wanted of the http.Header at `map` to the goroutine's record. */
__noinline int captured_all(__u64 process, __u64 goid, __u32 slot, __u64 map, __u64 list)
{
	struct header_scan *scan = header_scan_take();

	if (!scan)
		return 0;
	if (captured_begin(scan->place, slot, map, list))
		captured_rest(process, goid, scan->place, slot);
	header_scan_give(scan);
	return 0;
}

/* The same, 0 if there is none. */
static __always_inline void headers_capture(const struct hit *hit, __u64 map, enum http_message message,
					    struct record_header *record, struct text *captured)
{
	captured->offset = record->length;
	captured->length = 0;
	if (!hit->process->headers || !map)
		return;
	captured_all(hit->key.process, hit->key.goid, hit->process->slot, map,
		     wanted_list(hit->process->headers, message));
	captured->length = record->length - captured->offset;
}
