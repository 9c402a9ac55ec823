/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Calls of kafka-go's Writers, and the trace context that shall go out with their messages. */
#pragma once

#include "span.h"

/* What a goroutine is in the middle of: (*Writer).WriteMessages. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct trace_context); /* of the call's span */
} kafka_go_writes SEC(".maps");

/* A call begins, or begins again; without a span where `span` is NULL. */
static __always_inline void kafka_go_write_begin(const struct hit *hit, const struct span *span)
{
	struct trace_context context;

	if (!write_kafka)
		return;
	if (!span) {
		bpf_map_delete_elem(&kafka_go_writes, &hit->key);
		return;
	}
	context = span->context;
	bpf_map_update_elem(&kafka_go_writes, &hit->key, &context, BPF_ANY);
}

static __always_inline void kafka_go_write_over(const struct hit *hit)
{
	if (write_kafka)
		bpf_map_delete_elem(&kafka_go_writes, &hit->key);
}
