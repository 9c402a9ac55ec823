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

/* Entries outlive their span: a goroutine that outlives the request goes on with its context. The context's memory is
 * used again only when nobody has it any more; then its words are others. */
struct context_span {
	struct trace_context trace;
	__u64 parent; /* the context's second word when it was noted: the address of its parent */
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

/* Let a context, or something that is passed around like one, stand for a span: what is called with it, or with one
 * that is made from it, becomes a child. `address` is an interface's data word. */
static __always_inline void context_note(__u64 process, __u64 address, const struct trace_context *trace)
{
	struct context_key key = {process, address};
	struct context_span entry = {.trace = *trace};
	struct go_interface parent;

	if (!address || !context_read(&parent, address))
		return;
	entry.parent = parent.data;
	bpf_map_update_elem(&contexts, &key, &entry, BPF_ANY);
}
