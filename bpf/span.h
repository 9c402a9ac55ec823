/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Open spans. Each goroutine has a small stack of them; what a library wants to remember until the end of a span
 * lies in a map of its own, under the same key. */
#pragma once

#include "entry.h"
#include "go.h"
#include "go_context.h"
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
	bool own_goroutine; /* which was started for it, and ends with it */
	__u16 kind; /* of its record */
	__u8 parent_id[8];
	__u64 start; /* CLOCK_MONOTONIC, ns */
	__u64 stack; /* bytes of the goroutine's stack in use when it began; 0: not asked */
	__u64 call; /* tells the call from the next one: an argument of it; 0: nothing does */
};

/* Ids that no goroutine had yet when a span began, and that the processor on which it did was to give next (struct p of
 * runtime/runtime2.go: goidcache, goidcacheend): a goroutine that has one of these is younger than the span. */
struct goid_window {
	__u64 first;
	__u16 count; /* 0: not known; GOIDS_ANY: not asked */
	__u16 span; /* whose window it is: an index */
};

/* Of a span that is not sampled: of what else may have started a goroutine, nothing is worth the reads. */
#define GOIDS_ANY 0xffff

/* The request of a client's that a goroutine waits for (outgoing.h). */
struct outgoing_call {
	struct trace_context context;
	__u64 header; /* request.Header, a map: its address; 0: none is open */
	__u64
	    given_up; /* when the last one ended with an error, ns: it may be written yet, by a goroutine of its own */
};

/* What every hit looks at comes first: fewer lines of the processor's cache. */
struct goroutine {
	__u32 depth; /* open spans */
	struct goid_window window; /* of the innermost span that began with span_enter */
	__u64 request_context; /* of the request whose span is the outermost: its address; 0: none is open */
	__u64 connection_noted; /* when its connection's context was noted last, coarse_time(); 0: never */
	__u64 contexts_noted; /* the contexts that were noted for it, a bit each, which several may share */
	__u64 unread_header; /* of that request: its header map, where its trace is not known yet; 0: it is */
	struct outgoing_call outgoing;
	struct span spans[SPAN_DEPTH]; /* the outermost first */
	struct trace_context found; /* by context_find */
	__u64 found_goid; /* of the goroutine that has that span open, or had; 0: unknown */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct goroutine_key);
	__type(value, struct goroutine);
} goroutines SEC(".maps");

EMPTY_ENTRY(empty_goroutine, struct goroutine);

/* A hit: who runs, and where its executable's fields lie. */
struct hit {
	const struct process *process;
	const struct runtime_layout *go;
	struct goroutine *goroutine; /* NULL: it has no span open, and had none lately */
	struct goroutine_key key;
	__u64 g; /* *runtime.g */
	__u64 sp;
	__u32 tgid;
};

/* The process alone; false where it, or this library in it, is not traced, or where none of its spans are sampled and nobody
 * else hears of them either. */
static __always_inline bool hit_process(struct hit *hit, struct pt_regs *ctx)
{
	use_stack_of_thread(ctx);
	hit->tgid = current_tgid();
	hit->process = process_of(hit->tgid);
	return hit->process && !(hit->process->libraries_off & library_bit) &&
	       (is_context_sent() || hit->process->sampler != SAMPLER_ALWAYS_OFF);
}

/* Then the goroutine, but not its open spans; false where it cannot be told. */
static __always_inline bool hit_goroutine(struct hit *hit, struct pt_regs *ctx)
{
	hit->go = bpf_map_lookup_elem(&runtime_layouts, &hit->process->slot);
	if (!hit->go)
		return false;
	hit->key.process = hit->process->id;
	hit->g = GO_G(ctx);
	hit->sp = GO_SP(ctx);
	hit->goroutine = NULL;
	return go_read_field(&hit->key.goid, sizeof(hit->key.goid), hit->g, hit->go->g_goid);
}

/* As hit_begin, but without looking for the goroutine's open spans. */
static __always_inline bool hit_identify(struct hit *hit, struct pt_regs *ctx)
{
	return hit_process(hit, ctx) && hit_goroutine(hit, ctx);
}

/* The same for programs that add to spans, where there may be any: those of a process none of whose are sampled cost least. */
static __always_inline bool hit_identify_sampled(struct hit *hit, struct pt_regs *ctx)
{
	return hit_process(hit, ctx) && hit->process->sampler != SAMPLER_ALWAYS_OFF && hit_goroutine(hit, ctx);
}

/* False where the process, or this library in it, is not traced, or the goroutine cannot be told. */
static __always_inline bool hit_begin(struct hit *hit, struct pt_regs *ctx)
{
	if (!hit_identify(hit, ctx))
		return false;
	hit->goroutine = bpf_map_lookup_elem(&goroutines, &hit->key);
	return true;
}

/* Is the goroutine of this hit running deferred functions because of a panic, or of runtime.Goexit? */
static __always_inline bool is_panicking(struct pt_regs *ctx, const struct runtime_layout *go)
{
	__u64 panic = 0;

	return go_read_field(&panic, sizeof(panic), GO_G(ctx), go->g_panic) && panic;
}

static __always_inline struct goroutine *goroutine_find_or_add(struct hit *hit)
{
	if (!hit->goroutine)
		hit->goroutine = find_or_add(&goroutines, &empty_goroutine, &hit->key);
	return hit->goroutine;
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
	random_id(goroutine->found.trace_id, sizeof(goroutine->found.trace_id));
	random_id(goroutine->found.span_id, sizeof(goroutine->found.span_id));
	goroutine->found.flags = 0;
	goroutine->found_goid = 0;
}

/* Has another connection had its context where that of this request's was? Then what was noted is of one that has been
 * closed. */
static __always_inline bool is_of_closed_connection(__u64 process, const struct context_span *noted)
{
	struct context_key key = {process, noted->parent};
	const struct context_span *connection;

	if (noted->whose != CONTEXT_OF_REQUEST)
		return false;
	connection = bpf_map_lookup_elem(&contexts, &key);
	return connection && connection->whose == CONTEXT_OF_CONNECTION && connection->goid != noted->goid;
}

#define CONTEXT_FOUND 1 /* an address that no context has */

/* Look whether a context is a span's own, or stands for one; that span is then in the goroutine's entry, and CONTEXT_FOUND
 * returned; else the address of its parent, 0 where it has none. `child` is the context that led here. A global function: the
 * verifier goes through it once, and not once for each step; so it takes the key of the entry, and not the entry
 * (pointers to memory: only since kernel 5.12). */
__noinline __u64 context_step(__u64 process, __u64 goid, __u64 context, __u64 child)
{
	struct goroutine_key owner_key = {process, goid};
	const struct context_key key = {process, context};
	const struct context_span *known;
	const struct goroutine *owner;
	struct goroutine *goroutine;
	struct go_interface parent;
	__u64 next;

	if (!context_read(&parent, context))
		return 0;
	known = bpf_map_lookup_elem(&contexts, &key);
	if (known && (goroutine = bpf_map_lookup_elem(&goroutines, &owner_key))) {
		owner_key.goid = known->goid;
		owner = bpf_map_lookup_elem(&goroutines, &owner_key);
		if (known->whose != CONTEXT_OF_CONNECTION) {
			if ((owner && span_is_open(owner, &known->trace)) ||
			    (context_is_same(known, &parent) && !is_of_closed_connection(process, known))) {
				goroutine->found = known->trace;
				goroutine->found_goid = known->goid;
				return CONTEXT_FOUND;
			}
		} else if (context_is_of_connection(context_parent(&parent))) {
			if (!owner || !is_context_of_request(goroutine, owner, known->goid, child))
				found_unsampled(goroutine);
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
	const struct goroutine_key key = {process, goid};
	struct goroutine *goroutine = bpf_map_lookup_elem(&goroutines, &key);
	__u64 child = 0, next;

	if (!goroutine)
		return 0;
	for (int i = 0; i < CONTEXT_DEPTH; i++) {
		if (is_context_of_request(goroutine, goroutine, goid, context))
			return 1;
		next = context_step(process, goid, context, child);
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

/* How much of its stack the goroutine of this hit uses, bytes; the same after the stack has been moved. 0: unknown. */
static __always_inline __u64 stack_in_use(const struct hit *hit)
{
	__u64 high = 0;

	return go_read_field(&high, sizeof(high), hit->g, hit->go->g_stack_hi) ? high - hit->sp : 0;
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
		random_id(span->context.trace_id, sizeof(span->context.trace_id));
	}
	if (!parent || (is_remote && !(hit->process->sampler & SAMPLER_PARENT_BASED)))
		span->context.flags = is_sampled(hit->process, &span->context) ? TRACE_FLAG_SAMPLED : 0;
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
	if (span)
		span->stack = stack;
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
		span->call = call;
	}
	return span;
}

/* The span of the call that returns here: the innermost of this kind, if it began where the stack was as full as now. */
static __always_inline struct span *span_returned(const struct hit *hit, struct goroutine *goroutine, __u16 kind)
{
	struct span *span = span_find(goroutine, kind);

	return span && span->stack == stack_in_use(hit) ? span : NULL;
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
