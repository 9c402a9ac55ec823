/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Strings of the target, packed behind a record's struct. */
#pragma once

#include "go.h"
#include "record.h"
#include "trace_context.h"

/* Append at most `limit` bytes (a constant) of a Go string to the record that starts at `record` and is `size` bytes
 * in all (a constant); header.length says how far it is filled. Where it does not fit it is cut, and marked. */
static __always_inline void text_append(void *record, __u32 size, struct text *text, const struct go_string *string,
					__u32 limit)
{
	struct record_header *header = record;
	__u64 length = string->length;
	__u64 at = header->length;

	text->offset = at;
	text->length = 0;
	if (!length)
		return;
	if (length > limit) {
		count(COUNTER_TEXTS_CUT);
		text->length = TEXT_CUT;
		length = limit;
	}
	if (at > size - limit) {
		count(COUNTER_TEXTS_CUT);
		text->length = TEXT_CUT;
		return;
	}
	CLAMP(length, limit);
	CLAMP(at, size - limit);
	if (!go_read((char *)record + at, length, string->data))
		return;
	text->length |= length;
	header->length = at + length;
}

/* Read and parse the value of a traceparent. */
static __always_inline bool traceparent_read(struct traceparent *text, const struct go_string *value,
					     struct trace_context *to)
{
	__u32 length = TRACEPARENT_LENGTH;

	if (value->length < TRACEPARENT_LENGTH)
		return false;
	if (value->length > TRACEPARENT_LENGTH)
		length++;
	return go_read(text->version, length, value->data) && traceparent_parse(text, value->length, to);
}
