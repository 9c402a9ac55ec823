/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A hit of a probe, and what is known of the goroutine that it is of: a small stack of open spans. What a library wants to
 * remember until the end of a span lies in a map of its own, under the same key. */
#pragma once

#include "connection_reading.h"
#include "entry.h"
#include "go.h"
#include "process_cache.h"
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
	__u64 sp; /* the stack pointer then, before the stack was moved; 0: not asked */
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
	__u32 place; /* of that header map in outgoing_headers */
	__u32 home; /* the set that it is looked for in first */
	__u32 takers; /* of that place, when it was taken; where it has none, where that is counted */
};

/* What every hit looks at comes first: fewer lines of the processor's cache. */
struct goroutine {
	__u32 depth; /* open spans */
	struct goid_window window; /* of the innermost span that began with span_enter */
	__u64 request_context; /* of the request whose span is the outermost: its address; 0: none is open */
	__u64 connection_noted; /* when its connection's context was noted last, coarse_time(); 0: never */
	__u64 connection_context; /* that connection's, its address; 0: not known */
	__u64 contexts_noted; /* the contexts that were noted for it, a bit each, which several may share */
	__u64 unread_header; /* of that request: its header map, where its trace is not known yet; 0: it is */
	struct known_connection own; /* that it serves, or writes to, as long as it lives */
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
	const struct cached_process *known;

	use_stack_of_thread(ctx);
	hit->tgid = current_tgid();
	known = process_of(hit->tgid);
	if (!known)
		return false;
	hit->process = &known->process;
	hit->go = &known->go;
	return !(hit->process->libraries_off & library_bit) &&
	       (is_context_sent() || hit->process->sampler != SAMPLER_ALWAYS_OFF);
}

/* Then the goroutine, but not its open spans; false where it cannot be told. */
static __always_inline bool hit_goroutine(struct hit *hit, struct pt_regs *ctx)
{
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

/* How much of its stack the goroutine of this hit uses, bytes; the same after the stack has been moved. 0: unknown. */
static __always_inline __u64 stack_in_use(const struct hit *hit)
{
	__u64 high = 0;

	return go_read_field(&high, sizeof(high), hit->g, hit->go->g_stack_hi) ? high - hit->sp : 0;
}
