/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The attempts at calls that gRPC clients are making, and the trace context that shall go out with each. */
#pragma once

#include "span.h"

struct grpc_attempt {
	struct trace_context context; /* of the call's span */
	__u64 transport; /* *http2Client; 0: whose attempt it is, is not known */
};

/* What a goroutine is in the middle of: (*http2Client).NewStream. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct grpc_attempt);
} grpc_attempts SEC(".maps");

/* An attempt begins; without a span where that can't be told. */
static __always_inline void grpc_attempt_begin(const struct hit *hit, __u64 transport, const struct span *span)
{
	struct grpc_attempt attempt = {};

	if (span) {
		attempt.context = span->context;
		attempt.transport = transport;
	}
	bpf_map_update_elem(&grpc_attempts, &hit->key, &attempt, BPF_ANY);
}
