/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Open spans. Each goroutine has a small stack of them; what a library wants to remember until the end of a span
 * lies in a map of its own, under the same key. */
#pragma once

#include "go.h"
#include "record.h"
#include "trace_context.h"

#define SPAN_DEPTH 4 /* spans of one goroutine open at a time */

/* Never the g's address, which the runtime uses again: goids and process ids are not. */
struct goroutine_key {
	__u64 process; /* struct process.id */
	__u64 goid;
};

struct span {
	struct trace_context context;
	__u8 flags; /* enum record_flags */
	__u16 kind; /* of its record */
	__u8 parent_id[8];
	__u64 start; /* CLOCK_MONOTONIC, ns */
};

struct goroutine {
	__u32 depth; /* open spans */
	struct span spans[SPAN_DEPTH]; /* the outermost first */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct goroutine_key);
	__type(value, struct goroutine);
} goroutines SEC(".maps");

/* What a new entry is made from; it is too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct goroutine);
} empty_goroutine SEC(".maps");

/* A hit: who runs, and where its executable's fields lie. */
struct hit {
	const struct process *process;
	const struct runtime_layout *go;
	struct goroutine_key key;
};

/* False where the process, or this library in it, is not traced, or the goroutine cannot be told. */
static __always_inline bool hit_begin(struct hit *hit, struct pt_regs *ctx)
{
	use_stack_of_thread(ctx);
	hit->process = current_process();
	if (!hit->process || hit->process->libraries_off & library_bit)
		return false;
	hit->go = bpf_map_lookup_elem(&runtime_layouts, &hit->process->slot);
	if (!hit->go)
		return false;
	hit->key.process = hit->process->id;
	return go_read_field(&hit->key.goid, sizeof(hit->key.goid), GO_G(ctx), hit->go->g_goid);
}

/* Is the goroutine of this hit running deferred functions because of a panic, or of runtime.Goexit? */
static __always_inline bool is_panicking(struct pt_regs *ctx, const struct runtime_layout *go)
{
	__u64 panic = 0;

	return go_read_field(&panic, sizeof(panic), GO_G(ctx), go->g_panic) && panic;
}

static __always_inline struct goroutine *goroutine_find(const struct hit *hit)
{
	return bpf_map_lookup_elem(&goroutines, &hit->key);
}

static __always_inline struct goroutine *goroutine_find_or_add(const struct hit *hit)
{
	struct goroutine *goroutine = goroutine_find(hit);
	__u32 zero = 0;
	void *empty;

	if (goroutine)
		return goroutine;
	empty = bpf_map_lookup_elem(&empty_goroutine, &zero);
	if (!empty)
		return NULL;
	bpf_map_update_elem(&goroutines, &hit->key, empty, BPF_ANY);
	return goroutine_find(hit);
}

/* The innermost open span of `kind`, or NULL. Spans above it are of calls that have not come back. */
static __always_inline struct span *span_find(struct goroutine *goroutine, __u16 kind)
{
	struct span *found = NULL;

#pragma unroll
	for (__u32 i = 0; i < SPAN_DEPTH; i++)
		if (i < goroutine->depth && goroutine->spans[i].kind == kind)
			found = &goroutine->spans[i];
	return found;
}

/* The sampler's word on a trace that begins here. */
static __always_inline bool is_sampled(const struct process *process, const struct trace_context *context)
{
	__u64 low;

	switch (process->sampler & ~SAMPLER_PARENT_BASED) {
	case SAMPLER_ALWAYS_OFF:
		return false;
	case SAMPLER_RATIO:
		__builtin_memcpy(&low, context->trace_id + 8, sizeof(low));
		return process->ratio == ~0ULL || __builtin_bswap64(low) < process->ratio;
	default:
		return true;
	}
}

/* Open a span. Its parent is `remote` where that is given, else the goroutine's innermost open span. The sampler
 * decides at the local root. NULL where the goroutine has as many as can be kept: that one is counted, and left out. */
static __always_inline struct span *span_push(const struct hit *hit, struct goroutine *goroutine, __u16 kind,
					      const struct trace_context *remote)
{
	__u32 depth = goroutine->depth;
	const struct trace_context *parent = remote;
	struct span *span;

	if (depth >= SPAN_DEPTH) {
		count(COUNTER_SPANS_TOO_DEEP);
		return NULL;
	}
	span = &goroutine->spans[depth];
	if (!parent && depth)
		parent = &goroutine->spans[(depth - 1) & (SPAN_DEPTH - 1)].context;
	__builtin_memset(span, 0, sizeof(*span));
	if (parent) {
		span->context = *parent;
		__builtin_memcpy(span->parent_id, parent->span_id, sizeof(span->parent_id));
	} else {
		random_id(span->context.trace_id, sizeof(span->context.trace_id));
	}
	if (!parent || (remote && !(hit->process->sampler & SAMPLER_PARENT_BASED)))
		span->context.flags = is_sampled(hit->process, &span->context) ? TRACE_FLAG_SAMPLED : 0;
	random_id(span->context.span_id, sizeof(span->context.span_id));
	span->kind = kind;
	span->flags = remote ? RECORD_REMOTE_PARENT : 0;
	span->start = bpf_ktime_get_ns();
	goroutine->depth = depth + 1;
	count(COUNTER_SPANS_STARTED);
	return span;
}

/* Close a span, and whatever was left open above it. */
static __always_inline void span_pop(struct goroutine *goroutine, struct span *span)
{
	__u32 index = (__u64)((char *)span - (char *)goroutine->spans) / sizeof(*span);

	goroutine->depth = index;
	count(COUNTER_SPANS_ENDED);
}

/* Fill a record's header from a span that ends now. */
static __always_inline void span_record(const struct hit *hit, const struct span *span, struct record_header *header)
{
	header->kind = span->kind;
	header->tgid = current_tgid();
	header->slot = hit->process->slot;
	header->flags = span->flags;
	header->process = hit->process->id;
	header->start = span->start;
	header->end = bpf_ktime_get_ns();
	__builtin_memcpy(header->trace_id, span->context.trace_id, sizeof(header->trace_id));
	__builtin_memcpy(header->span_id, span->context.span_id, sizeof(header->span_id));
	__builtin_memcpy(header->parent_id, span->parent_id, sizeof(header->parent_id));
}
