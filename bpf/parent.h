/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Whose child a span is: that of the Go context that a call was given, of the goroutine that makes it, or of the one that
 * started that goroutine. */
#pragma once

#include "go_context.h"
#include "hit.h"

static __always_inline bool is_same_span(const struct trace_context *one, const struct trace_context *other)
{
	__u64 a, b;

	__builtin_memcpy(&a, one->span_id, sizeof(a));
	__builtin_memcpy(&b, other->span_id, sizeof(b));
	return a == b;
}

static __always_inline bool span_is_open(const struct goroutine *goroutine, const struct trace_context *context)
{
	bool found = false;

#pragma unroll
	for (__u32 i = 0; i < SPAN_DEPTH; i++)
		if (i < goroutine->depth && is_same_span(&goroutine->spans[i].context, context))
			found = true;
	return found;
}

/* Whether a context is that of the request that a goroutine serves; then the request's is the span found. */
static __always_inline bool is_context_of_request(struct goroutine *goroutine, const struct goroutine *owner,
						  __u64 goid, __u64 context)
{
	if (!owner->depth || owner->request_context != context)
		return false;
	goroutine->found = owner->spans[0].context;
	goroutine->found_goid = goid;
	/* Another processor may go on to the connection's next request meanwhile. */
	return *(const volatile __u64 *)&owner->request_context == context;
}

/* What a request was is forgotten, but not that it was not sampled. */
static __always_inline void found_unsampled(struct goroutine *goroutine)
{
	context_make_up(&goroutine->found);
	goroutine->found_goid = 0;
}

/* Is the parent of this context another one's by now? For a request's, another connection has its context there: then what
 * was noted is of one that has been closed. For one that was made from a request's, another request has. */
static __always_inline bool is_parent_another(__u64 process, const struct context_span *noted)
{
	__u64 address = noted->parent, a, b;
	const struct context_note *parent = context_note_at(context_look_up(process, address));
	bool another;

	if (!parent)
		return false;
	if (noted->whose == CONTEXT_OF_REQUEST) {
		another = parent->span.whose == CONTEXT_OF_CONNECTION && parent->span.goid != noted->goid;
	} else {
		__builtin_memcpy(&a, parent->span.trace.trace_id, sizeof(a));
		__builtin_memcpy(&b, noted->trace.trace_id, sizeof(b));
		another = parent->span.whose == CONTEXT_OF_REQUEST && a != b;
	}
	return another && context_is_kept(parent, process, address);
}

#define CONTEXT_FOUND 1 /* an address that no context has */

/* Look whether a context is a span's own, or stands for one; that span is then in the goroutine's entry, and CONTEXT_FOUND
 * returned; else the address of its parent, 0 where it has none. `child` is the context that led here. A global function: the
 * verifier goes through it once, and not once for each step; so it takes the key of the entry, and not the entry
 * (pointers to memory: only since kernel 5.12). */
__noinline __u64 context_step(__u64 process, __u64 goid, __u64 context, __u64 child)
{
	struct goroutine_key owner_key = {process, goid};
	const struct context_note *note;
	const struct goroutine *owner;
	struct goroutine *goroutine;
	struct go_interface parent;
	__u64 next;

	if (!context_read(&parent, context))
		return 0;
	note = context_note_at(context_look_up(process, context));
	if (note && (goroutine = bpf_map_lookup_elem(&goroutines, &owner_key))) {
		owner_key.goid = note->span.goid;
		owner = bpf_map_lookup_elem(&goroutines, &owner_key);
		if (note->span.whose != CONTEXT_OF_CONNECTION) {
			/* The connection's present request may have its context where an earlier one had it. */
			if (owner && is_context_of_request(goroutine, owner, owner_key.goid, context))
				return CONTEXT_FOUND;
			if ((owner && span_is_open(owner, &note->span.trace)) ||
			    (context_is_same(&note->span, &parent) && !is_parent_another(process, &note->span))) {
				goroutine->found = note->span.trace;
				goroutine->found_goid = owner_key.goid;
				if (context_is_kept(note, process, context))
					return CONTEXT_FOUND;
			}
		} else if (context_is_of_connection(context_parent(&parent))) {
			if (!owner || !is_context_of_request(goroutine, owner, owner_key.goid, child))
				found_unsampled(goroutine);
			if (context_is_kept(note, process, context))
				return CONTEXT_FOUND;
		}
	}
	next = context_parent(&parent);
	return next > CONTEXT_FOUND ? next : 0;
}

/* Find the span to which a Go context belongs, by walking to its parents. It is then in the goroutine's entry. 0 where
 * there is none. */
__noinline int context_find(__u64 process, __u64 goid, __u64 context)
{
	struct goroutine_key key = {process, goid}; /* which is on the stack anyway: there is room for nothing else */
	struct goroutine *goroutine = bpf_map_lookup_elem(&goroutines, &key);
	__u64 child = 0, next;

	if (!goroutine)
		return 0;
	for (int i = 0; i < CONTEXT_DEPTH; i++) {
		if (is_context_of_request(goroutine, goroutine, key.goid, context))
			return 1;
		next = context_step(key.process, key.goid, context, child);
		if (next <= CONTEXT_FOUND)
			return next;
		child = context;
		context = next;
	}
	return 0;
}

/* Has the goroutine ever been parked? Then what it does now may be for somebody else, as a worker's jobs are. The reason
 * is zero from a goroutine's start until it waits for the first time (runtime/proc.go: gopark, gdestroy). */
static __always_inline bool has_waited(const struct hit *hit)
{
	__u8 reason = 0;

	return !go_read_field(&reason, sizeof(reason), hit->g, hit->go->g_waitreason) || reason;
}

/* Find the span that was open when a goroutine was started: one of the goroutine that started it (runtime.g.parentGoid,
 * since Go 1.21), if that has it open still, and the id proves that the new goroutine is younger than the span. It is
 * then in the entry of `goid`, as context_find puts it there. */
__noinline int creator_find(__u64 process, __u64 goid, __u64 creator)
{
	const struct goroutine_key key = {process, goid}, creator_key = {process, creator};
	struct goroutine *goroutine = bpf_map_lookup_elem(&goroutines, &key);
	const struct goroutine *owner = bpf_map_lookup_elem(&goroutines, &creator_key);
	__u64 index;

	if (!goroutine || !owner ||
	    (owner->window.count != GOIDS_ANY && goid - owner->window.first >= owner->window.count))
		return 0;
	index = owner->window.span;
	if (index >= SPAN_DEPTH || index >= owner->depth)
		return 0;
	MASK(index, SPAN_DEPTH - 1);
	goroutine->found = owner->spans[index].context;
	goroutine->found_goid = creator;
	return 1;
}

/* The parent of a span that begins in this process: the span of the Go context that the call was given, else the
 * goroutine's innermost open span; that one too where the context leads to one around it; else the span in which the
 * goroutine was started. NULL: it is a root. */
static __always_inline const struct trace_context *local_parent(const struct hit *hit, struct goroutine *goroutine,
								__u64 context)
{
	__u32 depth = goroutine->depth;
	const struct trace_context *own = NULL;
	__u64 creator = 0;

	if (depth) {
		own = &goroutine->spans[(depth - 1) & (SPAN_DEPTH - 1)].context;
		if (context && goroutine->request_context == context)
			return own; /* that is the outermost one's */
	}
	if (!context || !context_find(hit->key.process, hit->key.goid, context)) {
		if (own || has_waited(hit) ||
		    !go_read_field(&creator, sizeof(creator), hit->g, hit->go->g_parent_goid))
			return own;
		return creator_find(hit->key.process, hit->key.goid, creator) ? &goroutine->found : NULL;
	}
	return span_is_open(goroutine, &goroutine->found) ? own : &goroutine->found;
}
