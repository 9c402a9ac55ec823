/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Trace context as fields of an HTTP/2 header block: literal ones without indexing, which leave no trace in the state of
 * the compression at either end (RFC 7541, 6.2.2), so that they may follow any complete block. */
#pragma once

#include "propagation.h"

#define HUFFMAN		   0x80
#define PLAIN_LENGTH_LIMIT 127 /* from here on a length takes more than one byte */

struct traceparent_field {
	__u8 kind; /* 0: literal header field without indexing, new name */
	__u8 name_length;
	char name[8]; /* Huffman-coded */
	__u8 value_length;
	char value[TRACEPARENT_LENGTH];
};

struct tracestate_head {
	__u8 kind, name_length;
	char name[7];
	__u8 value_length;
};

/* What a peer's limit for a list of fields counts for a traceparent (RFC 9113, 6.5.2). */
#define TRACEPARENT_LIST_SIZE (11 + TRACEPARENT_LENGTH + 32)

/* Write `traceparent` to an address, and behind it `tracestate`, if one came with the trace and fits into the `room` as
 * well; give their length, 0 where nothing can be written. The room is that of a traceparent at least. */
static __always_inline __u64 header_fields_write(__u64 to, __u64 room, const struct trace_context *context)
{
	struct traceparent_field field = {
	    .name_length = HUFFMAN | sizeof(field.name),
	    .name = "\x4d\x83\x21\x6b\x1d\x85\xa9\x3f",
	    .value_length = TRACEPARENT_LENGTH,
	};
	struct tracestate_head head = {.name_length = HUFFMAN | sizeof(head.name),
				       .name = "\x4d\x83\x21\x50\x91\xa4\xbf"};
	const struct tracestate *state;
	__u64 length;

	traceparent_format(field.value, context);
	if (!go_write(to, &field, sizeof(field)))
		return 0;
	state = bpf_map_lookup_elem(&tracestates, context->trace_id);
	if (!state)
		return sizeof(field);
	length = state->length;
	if (!length || length >= PLAIN_LENGTH_LIMIT || sizeof(field) + sizeof(head) + length > room)
		return sizeof(field);
	head.value_length = length;
	to += sizeof(field);
	if (!go_write(to, &head, sizeof(head)) || !tracestate_write(to + sizeof(head), state, length))
		return sizeof(field);
	return sizeof(field) + sizeof(head) + length;
}
