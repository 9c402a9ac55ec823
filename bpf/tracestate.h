/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The `tracestate` that came with a trace's context from outside: it is sent on along with it. */
#pragma once

#include "entry.h"
#include "go.h"

#define TRACESTATE_KEPT 512 /* bytes: what is longer is not sent on. W3C Trace Context, 3.3.1.5 */

struct tracestate {
	__u64 length; /* 0: none */
	char text[TRACESTATE_KEPT];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u8[16]); /* trace id */
	__type(value, struct tracestate);
} tracestates SEC(".maps");

EMPTY_ENTRY(empty_tracestate, struct tracestate);

static __always_inline void tracestate_keep(const __u8 *trace_id, const struct go_string *value)
{
	__u64 length = value->length;
	struct tracestate *entry;

	if (!length)
		return;
	if (length > TRACESTATE_KEPT) {
		count(COUNTER_TEXTS_CUT);
		return;
	}
	entry = find_or_add(&tracestates, &empty_tracestate, trace_id);
	if (!entry)
		return;
	entry->length = 0;
	asm volatile("" : "+r"(length));
	if (length <= TRACESTATE_KEPT && go_read(entry->text, length, value->data))
		entry->length = length;
}
