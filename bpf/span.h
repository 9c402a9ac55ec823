/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Spans: how they begin and end. */
#pragma once

#include "parent.h"

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

/* Drop the spans of calls that did not return, since they panicked: a call that is made later from where they were made,
 * or from further out, finds the stack no fuller than they did. */
static __always_inline void spans_drop_stale(struct goroutine *goroutine, __u64 stack)
{
#pragma unroll
	for (int i = 0; i < SPAN_DEPTH; i++) {
		__u64 top = goroutine->depth - 1ULL;

		if (top >= SPAN_DEPTH || !stack)
			return;
		MASK(top, SPAN_DEPTH - 1);
		if (goroutine->spans[top].stack < stack)
			return;
		goroutine->depth = top;
		count(COUNTER_SPANS_ABANDONED);
	}
}

/* Open a span, a child of `parent` (NULL: a root). The sampler decides at the local root. NULL where the goroutine has as
 * many open spans as can be kept: that one is counted, and left out. */
static __always_inline struct span *span_open(const struct hit *hit, struct goroutine *goroutine, __u16 kind,
					      const struct trace_context *parent, bool is_remote)
{
	__u32 depth = goroutine->depth;
	struct span *span;

	if (depth >= SPAN_DEPTH) {
		count(COUNTER_SPANS_TOO_DEEP);
		return NULL;
	}
	if (goroutine->window.span >= depth)
		goroutine->window.count = 0; /* of a span that has ended */
	span = &goroutine->spans[depth];
	__builtin_memset(span, 0, sizeof(*span));
	if (parent) {
		span->context = *parent;
		__builtin_memcpy(span->parent_id, parent->span_id, sizeof(span->parent_id));
	} else {
		random_id(span->context.trace_id + 8, 8); /* the half that samplers look at */
	}
	if (!parent || (is_remote && !(hit->process->sampler & SAMPLER_PARENT_BASED)))
		span->context.flags = is_sampled(hit->process, &span->context) ? TRACE_FLAG_SAMPLED : 0;
	if (!parent)
		trace_id_complete(&span->context);
	span->kind = kind;
	span->flags = is_remote ? RECORD_REMOTE_PARENT : 0;
	if (span->context.flags & TRACE_FLAG_SAMPLED) {
		random_id(span->context.span_id, sizeof(span->context.span_id));
		span->start = bpf_ktime_get_ns();
		count(COUNTER_SPANS_STARTED);
	} else if (!parent) {
		/* What is not sampled passes its parent's id on: of its own nobody will ever hear. */
		__builtin_memcpy(span->context.span_id, span->context.trace_id, sizeof(span->context.span_id));
	}
	goroutine->depth = depth + 1;
	return span;
}

/* Note which ids the goroutines may have that are started from now on, while the goroutine's innermost span is open. */
static __always_inline void goids_note(const struct hit *hit, struct goroutine *goroutine, bool is_sampled)
{
	struct go_pair cache = {};
	__u64 m = 0, p = 0;

	goroutine->window.span = goroutine->depth - 1;
	goroutine->window.count = GOIDS_ANY;
	if (!is_sampled)
		return;
	goroutine->window.count = 0;
	if (!go_read_field(&m, sizeof(m), hit->g, hit->go->g_m) || !go_read_field(&p, sizeof(p), m, hit->go->m_p) ||
	    !go_read_pair(&cache, p, hit->go->p_goidcache, hit->go->p_goidcacheend))
		return;
	if (cache.second - cache.first >= GOIDS_ANY)
		return;
	goroutine->window.first = cache.first;
	goroutine->window.count = cache.second - cache.first;
}

/* Open the span of something that comes from outside, a request or a message, on the goroutine that handles it. `remote`
 * is the context that it carries, NULL where it carries none. */
static __always_inline struct span *span_enter(const struct hit *hit, struct goroutine *goroutine, __u16 kind,
					       const struct trace_context *remote)
{
	const struct trace_context *parent = remote;
	struct span *span;

	if (!parent && goroutine->depth)
		parent = &goroutine->spans[(goroutine->depth - 1) & (SPAN_DEPTH - 1)].context;
	span = span_open(hit, goroutine, kind, parent, remote);
	if (span)
		goids_note(hit, goroutine, span->context.flags & TRACE_FLAG_SAMPLED);
	return span;
}

/* Open the span of a call that the program makes. `context` is the data word of the context.Context that it was given, 0
 * where it takes none. */
static __always_inline struct span *span_push(const struct hit *hit, struct goroutine *goroutine, __u16 kind,
					      __u64 context)
{
	__u64 stack = stack_in_use(hit);
	struct span *span;

	spans_drop_stale(goroutine, stack);
	span = span_open(hit, goroutine, kind, local_parent(hit, goroutine, context), false);
	if (span) {
		span->stack = stack;
		span->sp = hit->sp;
	}
	return span;
}

/* The same, but NULL where a span of this kind is open already: of a call that uses another one of the same library, or
 * runs once more from its beginning as its stack had to grow, there is one span. The latter is told by `call`, which is
 * one of its arguments. */
static __always_inline struct span *span_push_outermost(const struct hit *hit, struct goroutine *goroutine,
							__u16 kind, __u64 context, __u64 call)
{
	__u64 stack = stack_in_use(hit);
	struct span *span = span_find(goroutine, kind);

	if (span && span->stack == stack && span->call == call)
		return NULL;
	spans_drop_stale(goroutine, stack);
	if (span_find(goroutine, kind))
		return NULL;
	span = span_open(hit, goroutine, kind, local_parent(hit, goroutine, context), false);
	if (span) {
		span->stack = stack;
		span->sp = hit->sp;
		span->call = call;
	}
	return span;
}

/* The span of the call that returns here: the innermost of this kind, if it began where the stack was as full as now. Where
 * the stack has not been moved meanwhile its pointer is the same, and nothing has to be read. */
static __always_inline struct span *span_returned(const struct hit *hit, struct goroutine *goroutine, __u16 kind)
{
	struct span *span = span_find(goroutine, kind);

	return span && (likely(span->sp == hit->sp) || span->stack == stack_in_use(hit)) ? span : NULL;
}

/* The span of another goroutine that context_find has found; NULL where it is open no more. */
static __always_inline struct span *span_found(const struct hit *hit, const struct goroutine *goroutine)
{
	struct goroutine_key key = {hit->key.process, goroutine->found_goid};
	struct goroutine *owner = bpf_map_lookup_elem(&goroutines, &key);

	if (!owner)
		return NULL;
#pragma unroll
	for (__u32 i = 0; i < SPAN_DEPTH; i++)
		if (i < owner->depth && is_same_span(&owner->spans[i].context, &goroutine->found))
			return &owner->spans[i];
	return NULL;
}

/* Close a span, and whatever was left open above it. */
static __always_inline void span_pop(struct goroutine *goroutine, struct span *span)
{
	__u32 index = (__u64)((char *)span - (char *)goroutine->spans) / sizeof(*span);

	goroutine->depth = index;
	if (span->context.flags & TRACE_FLAG_SAMPLED)
		count(COUNTER_SPANS_ENDED);
}

/* Fill a record's header from a span that ends now. */
static __always_inline void span_record(const struct hit *hit, const struct span *span, struct record_header *header)
{
	header->kind = span->kind;
	header->tgid = hit->tgid;
	header->slot = hit->process->slot;
	header->flags = span->flags;
	header->process = hit->process->id;
	header->start = span->start;
	header->end = bpf_ktime_get_ns();
	__builtin_memcpy(header->trace_id, span->context.trace_id, sizeof(header->trace_id));
	__builtin_memcpy(header->span_id, span->context.span_id, sizeof(header->span_id));
	__builtin_memcpy(header->parent_id, span->parent_id, sizeof(header->parent_id));
}
