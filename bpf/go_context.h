/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Which span a Go context.Context belongs to. A span that begins with a context of its own, as a server's does, notes the
 * address of that context; a call finds it again by walking from the context that it is given to the parents.
 *
 * Every type of package context that has a parent has it, an interface, as its first field: cancelCtx, timerCtx,
 * afterFuncCtx, valueCtx, stopCtx and withoutCancelCtx, Go 1.19 to 1.27; and so have types that embed a Context first,
 * as most do. (Not so timerCtx of Go 1.20 alone, which begins with a pointer to its cancelCtx.) What else is met is not
 * followed far: its words lead nowhere. */
#pragma once

#include "go.h"
#include "trace_context.h"

#define CONTEXT_DEPTH 40 /* contexts that are looked at, from the inside out */

struct context_key {
	__u64 process; /* struct process.id */
	__u64 address; /* the context's, an interface's data word */
};

#define ANCESTORS 3

/* Entries outlive their span: a goroutine that outlives the request goes on with its context. The context's memory is
 * used again only when nobody has it any more, and then most likely for other contexts, which may well be each other's
 * parents as those were before. But what a context has above it within a library, down to what lives as long as the
 * server, is made by that library only: where all of that is what it was, the context is. */
struct context_span {
	struct trace_context trace;
	__u64 goid; /* of the goroutine that has the span open, or had */
	__u64 ancestors[ANCESTORS]; /* the context's parent, its parent's, and so on, when it was noted */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct context_key);
	__type(value, struct context_span);
} contexts SEC(".maps");

/* The first two words of a context. Not counted where it cannot be read: this may be no context. */
static __always_inline bool context_read(struct go_interface *parent, __u64 address)
{
	return (__s64)address > 4096 && !bpf_probe_read_user(parent, sizeof(*parent), (const void *)address);
}

/* Where to go on from a context with these first two words. A type or an itab never lies in the heap, which is where the
 * runtime puts it on Linux (runtime/malloc.go, mallocinit: hints from 0xc0 << 32 on): such a word is a pointer to what is
 * embedded. */
static __always_inline __u64 context_parent(const struct go_interface *words)
{
	return words->type >> 32 >= 0xc0 && words->type >> 32 <= 0xff ? words->type : words->data;
}

/* Follow the parents of a context whose first two words are these. */
static __always_inline void context_ancestors(__u64 *ancestors, const struct go_interface *words)
{
	struct go_interface at = *words;

#pragma unroll
	for (int i = 0; i < ANCESTORS; i++) {
		ancestors[i] = context_parent(&at);
		if (!context_read(&at, ancestors[i]))
			at.type = at.data = 0;
	}
}

/* Let a context, or something that is passed around like one, stand for a span: what is called with it, or with one
 * that is made from it, becomes a child. `address` is an interface's data word, `goid` the goroutine that has the span. */
static __always_inline void context_note(__u64 process, __u64 goid, __u64 address, const struct trace_context *trace)
{
	struct context_key key = {process, address};
	struct context_span entry = {.trace = *trace, .goid = goid};
	struct go_interface words;

	if (!address || !context_read(&words, address))
		return;
	context_ancestors(entry.ancestors, &words);
	bpf_map_update_elem(&contexts, &key, &entry, BPF_ANY);
}

/* Whether the context that has these first two words now is the one that was noted. */
static __always_inline bool context_is(const struct context_span *known, const struct go_interface *words)
{
	__u64 ancestors[ANCESTORS];
	bool same = true;

	if (context_parent(words) != known->ancestors[0])
		return false;
	context_ancestors(ancestors, words);
#pragma unroll
	for (int i = 0; i < ANCESTORS; i++)
		same = same && ancestors[i] == known->ancestors[i];
	return same;
}
