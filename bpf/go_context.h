/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Which span a Go context.Context belongs to. A span that begins with a context of its own, as a server's does, notes the
 * address of that context; a call finds it again by walking from the context that it is given to the parents.
 *
 * Every type of package context that has a parent has it, an interface, as its first field: cancelCtx, timerCtx,
 * afterFuncCtx, valueCtx, stopCtx and withoutCancelCtx, Go 1.19 to 1.27; and so have types that embed a Context first,
 * as most do. (Not so timerCtx of Go 1.20 alone, which begins with a pointer to its cancelCtx.) What else is met is not
 * followed far: its words lead nowhere. */
#pragma once

#include "context_notes.h"
#include "go.h"

#define CONTEXT_DEPTH 40 /* contexts that are looked at, from the inside out */

enum context_owner {
	CONTEXT_OF_CALL,
	CONTEXT_OF_REQUEST,
	CONTEXT_OF_CONNECTION, /* HTTP/1: no span's, but which goroutine serves it */
	/* To context_put only, of requests on what may be a new connection: */
	CONTEXT_OF_FIRST_REQUEST, /* HTTP/1 */
	CONTEXT_OF_STREAM, /* HTTP/2: whichever request it is */
};

/* Notes outlive their span: a goroutine that outlives the request goes on with its context. When nobody has the context any
 * more its memory is used again, likely for other contexts, so a note whose span has ended needs proof. */

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

/* Is this a context of net/http's, or of x/net/http2's, with the server or the local address as its value? The keys are
 * pointers to a struct that is a string: "http-server" and "local-addr" (net/http/server.go, contextKey). */
static __always_inline bool context_is_of_connection(__u64 address)
{
	__u64 word = 0;

	/* A context with a value is {parent, key, value}; the key's data, its name's bytes, and the first of them. One
	 * variable: the stack is full. */
	if ((__s64)address <= 4096 || bpf_probe_read_user(&word, sizeof(word), (const void *)(address + 24)) ||
	    (__s64)word <= 4096 || bpf_probe_read_user(&word, sizeof(word), (const void *)word) ||
	    (__s64)word <= 4096 || bpf_probe_read_user(&word, sizeof(word), (const void *)word))
		return false;
	return word == 0x7265732d70747468ULL /* http-ser */ || word == 0x64612d6c61636f6cULL /* local-ad */;
}

/* Is the context at hand, with these first words, still the one that was noted, although its span has ended? Its parent
 * must be the same, and still belong to a connection: only requests have such contexts as parents, and each request of a
 * connection notes its own. The same words alone prove nothing: parent and child are often put, one after the other,
 * where a parent and a child have been before. */
static __always_inline bool context_is_same(const struct context_span *known, const struct go_interface *words)
{
	struct go_interface parent;

	if (words->data != known->parent || !context_read(&parent, words->data))
		return false;
	return context_is_of_connection(words->data) || context_is_of_connection(context_parent(&parent));
}

/* Not inlined: what it needs of the stack is then free for others. The address of the context's parent; 0: it is none that can
 * be read. */
static __noinline __attribute__((unused)) __u64 context_put(__u64 process, __u64 goid, __u64 address,
							    const struct trace_context *trace,
							    enum context_owner whose)
{
	struct context_key key = {process, address};
	struct context_span entry = {.goid = goid, .whose = whose};
	struct go_interface parent;
	bool may_be_first;

	if (!address)
		return 0;
	if (!context_read(&parent, address)) {
		count(COUNTER_READS_FAILED);
		return 0;
	}
	if (trace)
		entry.trace = *trace;
	if (whose == CONTEXT_OF_CONNECTION)
		key.address = context_parent(&parent);
	else
		entry.parent = parent.data;
	may_be_first = whose >= CONTEXT_OF_FIRST_REQUEST;
	if (may_be_first)
		entry.whose = CONTEXT_OF_REQUEST;
	context_keep(&key, &entry);
	if (may_be_first) {
		key.address = parent.data;
		context_forget(&key);
	}
	return parent.data;
}

/* Let a context, or something that is passed around like one, stand for a span of a goroutine: what is called with it, or
 * with one that is made from it, becomes a child. `address` is an interface's data word. Once the span has ended only
 * contexts of net/http's requests still count. */
static __always_inline void context_note(__u64 process, __u64 goid, __u64 address, const struct trace_context *trace)
{
	context_put(process, goid, address, trace, CONTEXT_OF_CALL);
}

/* The same for a request that net/http serves over HTTP/2, where each has a goroutine of its own. As any may be the first of
 * its connection, all is forgotten that is known of another whose context was at the same address. */
static __always_inline void context_note_stream(__u64 process, __u64 goid, __u64 address,
						const struct trace_context *trace)
{
	context_put(process, goid, address, trace, CONTEXT_OF_STREAM);
}

/* The same for one over HTTP/1. All of a connection have its context as their parent: `*connection` is that, once it is
 * known, 0 before. `first` is the first of them that is noted at all: with it, too, another connection is forgotten. */
static __always_inline void context_note_request(__u64 process, __u64 goid, __u64 address,
						 const struct trace_context *trace, __u64 *connection, bool first)
{
	const struct context_key key = {process, address};
	struct context_span entry = {};

	if (!*connection) {
		*connection =
		    context_put(process, goid, address, trace, first ? CONTEXT_OF_FIRST_REQUEST : CONTEXT_OF_REQUEST);
		return;
	}
	entry.trace = *trace;
	entry.goid = goid;
	entry.parent = *connection;
	entry.whose = CONTEXT_OF_REQUEST;
	context_keep(&key, &entry);
}

/* Let the parent of a request's context, which is the context of its HTTP/1 connection, stand for the goroutine: whoever
 * walks by it comes from the context of a request whose own was not noted, as it is not sampled. That is done once a
 * connection, and not once a request. */
static __always_inline void context_note_connection(__u64 process, __u64 goid, __u64 request_context)
{
	context_put(process, goid, request_context, NULL, CONTEXT_OF_CONNECTION);
}
